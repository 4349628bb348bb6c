"""The ground every medmind stage stands on: errors, console and artefacts. Knows no model, never imports torch."""

from importlib.metadata import PackageNotFoundError, version

try:
    __version__ = version("medmind")
except PackageNotFoundError:  # running from a source tree that was never installed
    __version__ = "0.0.0+source"
