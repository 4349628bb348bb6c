"""`medmind-chat bundle`: what a machine without a network needs to install medmind-chat and to answer, in one folder.

Knows the folder: wheels, model, library, install script, digests. How a wheel is made of what is installed: `wheels`.
"""

import platform
import shutil
import sys
import sysconfig
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

from medmind.artifacts import atomic_directory, require_space, sha256
from medmind.errors import MedmindError
from medmind_runtime.bundle import wheels
from medmind_runtime.library.index import Library

SUMS = "SHA256SUMS"
_PLAIN = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-+")
"""What a file's name may have in the install script."""


@dataclass(frozen=True)
class Written:
    """What was written.

    Attributes:
        folder: where.
        wheels: how many.
        size: of all files, bytes.
    """

    folder: Path
    wheels: int
    size: int


@dataclass(frozen=True)
class Contents:
    """What goes into a bundle.

    Attributes:
        model, library: the files; no library is None.
        extra: of medmind, that is to be installed.
        packages: what it needs.
    """

    model: Path
    library: Path | None
    extra: str
    packages: Sequence[wheels.Package]

    @property
    def files(self) -> list[Path]:
        """Those that are copied as they are."""
        return [self.model, *([self.library] if self.library else [])]

    @property
    def size(self) -> int:
        """Bytes before packing."""
        return sum(path.stat().st_size for path in self.files) + sum(package.size for package in self.packages)


def gather(model: Path, library: Path | None, extra: str) -> Contents:
    """Find what goes into a bundle.

    Args:
        model: a GGUF file that was checked.
        library: a file of `medmind-chat index`, or None.
        extra: the extra of medmind that is to be installed.

    Raises:
        MedmindError: the library is none, a file's name is not plain, or a package is not installed.
    """
    if library is not None:
        Library(library).close()
    for path in filter(None, (model, library)):
        if not _PLAIN.issuperset(path.name):
            raise MedmindError(f"the name {path.name} is not plain enough for a script", "rename the file")
    return Contents(model, library, extra, wheels.needed("medmind", extra))


def refuse_foreign(folder: Path) -> None:
    """Raise where a folder to be replaced holds something and is no bundle: what is in it would be lost."""
    if folder.is_dir() and any(folder.iterdir()) and not (folder / SUMS).is_file():
        raise MedmindError(f"{folder} is a folder and no bundle", "it is not replaced; give another name")


def write(contents: Contents, out: Path, *, force: bool, advance: Callable[..., None]) -> Written:
    """Write a bundle, whole or not at all.

    Args:
        contents: of `gather`.
        out: the folder to make.
        force: replace a folder that exists.
        advance: is called with a number of bytes and what they are.

    Raises:
        MedmindError: the folder exists, the disk is too small, or a package cannot be packed.
    """
    require_space(out.parent, contents.size, "the bundle")
    with atomic_directory(out, force=force) as folder:
        (folder / "wheels").mkdir()
        for package in contents.packages:
            wheels.pack(package, folder / "wheels")
            advance(package.size, package.name)
        wheels.demand_whole(f"medmind[{contents.extra}]", folder / "wheels")
        for path in contents.files:
            shutil.copyfile(path, folder / path.name)
            advance(path.stat().st_size, path.name)
        _script(folder / "install.sh", contents)
        _readme(folder / "README.txt", contents)
        _sums(folder)
        total = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    return Written(out, len(contents.packages), total)


def _sums(folder: Path) -> None:
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    sums = "".join(f"{sha256(path).removeprefix('sha256:')}  {path.relative_to(folder)}\n" for path in files)
    (folder / SUMS).write_text(sums, encoding="utf-8")


def _script(path: Path, contents: Contents) -> None:
    values = {
        "@PYTHON@": f"{sys.version_info.major}.{sys.version_info.minor}",
        "@SYSTEM@": platform.system(),
        "@MACHINE@": platform.machine(),
        "@EXTRA@": contents.extra,
        "@MODEL@": contents.model.name,
        "@LIBRARY@": contents.library.name if contents.library else "",
    }
    text = resources.files(__package__).joinpath("install.sh").read_text(encoding="utf-8")
    for name, value in values.items():
        text = text.replace(name, value)
    path.write_text(text, encoding="utf-8")
    path.chmod(0o755)


def _readme(path: Path, contents: Contents) -> None:
    library = contents.library
    sources = f"\nIt answers from the library {library.name} and names its sources." if library else ""
    path.write_text(
        f"medmind-chat with the model {contents.model.name}, for a machine without a network.{sources}\n\n"
        f"Needs {platform.system()} on {platform.machine()} ({sysconfig.get_platform()} or newer) and Python "
        f"{sys.version_info.major}.{sys.version_info.minor} with its venv module.\n\n"
        "    sh install.sh [FOLDER]     checks every file, installs into FOLDER (default: medmind here), and asks a\n"
        "                               question to see that it answers\n"
        "    FOLDER/chat                talk to the model\n\n"
        "This is a computer program, not a doctor. It can be wrong. In an emergency call your local\n"
        "emergency number.\n",
        encoding="utf-8",
    )
