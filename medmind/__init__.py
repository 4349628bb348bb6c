"""The ground every medmind stage stands on: errors, console and artefacts. Knows no model, never imports torch."""

__version__: str


def __getattr__(name: str) -> str:
    """The version, looked up when it is asked for: reading the metadata of packages takes longer than all else here."""
    if name != "__version__":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version("medmind")
    except PackageNotFoundError:  # running from a source tree that was never installed
        return "0.0.0+source"
