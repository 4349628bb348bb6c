"""Wheels of what is installed here, made again from the files themselves: what was tested is what is carried away.

Knows installed distributions and the wheel format (PEP 427). Asks no index and builds nothing but medmind itself, where
that is installed from a source tree.
"""

import base64
import csv
import hashlib
import importlib.metadata
import importlib.util
import io
import json
import re
import subprocess
import sys
import zipfile
from dataclasses import dataclass
from importlib.metadata import Distribution
from pathlib import Path, PurePosixPath
from urllib.parse import unquote, urlparse

from medmind import console
from medmind.errors import MedmindError

_LEFT_OUT = frozenset({"RECORD", "INSTALLER", "REQUESTED", "direct_url.json"})
"""Of a .dist-info folder: what an installation adds."""


@dataclass(frozen=True)
class Package:
    """One installed distribution.

    Attributes:
        name, version: as in its metadata.
        size: of its files, bytes.
        source: the source tree that it is installed from; None for an ordinary installation.
    """

    name: str
    version: str
    size: int
    source: Path | None


def needed(name: str, extra: str) -> list[Package]:
    """A distribution with an extra and all that it needs on this machine, by name.

    Raises:
        MedmindError: something of it is not installed.
    """
    console.require("packaging", "runtime")
    from packaging.requirements import Requirement
    from packaging.utils import canonicalize_name

    found: dict[str, Package] = {}
    asked: set[tuple[str, str]] = set()
    waiting = [(name, extra)]
    while waiting:
        one, wanted = waiting.pop()
        key = canonicalize_name(one)
        if (key, wanted) in asked:
            continue
        asked.add((key, wanted))
        try:
            installed = importlib.metadata.distribution(one)
        except importlib.metadata.PackageNotFoundError:
            raise MedmindError(f"{one} is not installed", f"pip install '{name}[{extra}]'") from None
        if key not in found:
            found[key] = _package(installed)
        for line in installed.requires or []:
            requirement = Requirement(line)
            if requirement.marker is None or requirement.marker.evaluate({"extra": wanted}):
                waiting += [(requirement.name, more) for more in ("", *requirement.extras)]
    return [found[key] for key in sorted(found)]


def _package(installed: Distribution) -> Package:
    text = installed.read_text("direct_url.json")
    where = json.loads(text) if text else {}
    source = None
    if where.get("dir_info", {}).get("editable"):
        source = Path(unquote(urlparse(where["url"]).path))
    files = [Path(str(file.locate())) for file in installed.files or []]
    size = sum(file.stat().st_size for file in files if file.is_file())
    return Package(installed.metadata["Name"], installed.version, size, source)


def pack(package: Package, folder: Path) -> Path:
    """Write the wheel of a distribution into a folder.

    Raises:
        MedmindError: it was installed without a list of its files, or a file has gone since.
    """
    if package.source is not None:
        return _build(package, package.source, folder)
    installed = importlib.metadata.distribution(package.name)
    described = installed.read_text("WHEEL")
    if described is None or not installed.files:
        raise MedmindError(
            f"{package.name} is installed without a list of its files",
            f"install it with pip: pip install {package.name}",
        )
    tags = re.findall(r"^Tag: (.+)$", described, re.MULTILINE)
    path = folder / f"{_word(package.name)}-{_word(package.version)}-{_tag(tags)}.whl"
    rows: list[tuple[str, str, int]] = []
    record = ""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        for file in sorted(installed.files, key=str):
            place = PurePosixPath(file.as_posix())
            if place.suffix == ".pyc" or ".." in place.parts or place.is_absolute():
                continue  # bytecode and scripts are made where the wheel is installed
            if place.parent.name.endswith(".dist-info") and place.name in _LEFT_OUT:
                record = str(place) if place.name == "RECORD" else record
                continue
            try:
                data = Path(str(file.locate())).read_bytes()
            except OSError as error:
                again = f"pip install --force-reinstall {package.name}"
                raise MedmindError(f"{file.locate()} of {package.name}: {error.strerror}", again) from error
            _add(archive, str(place), data)
            rows.append((str(place), _digest(data), len(data)))
        text = io.StringIO()
        csv.writer(text, lineterminator="\n").writerows([*rows, (record, "", "")])
        _add(archive, record, text.getvalue().encode())
    return path


def demand_whole(requirement: str, folder: Path) -> None:
    """Refuse wheels that do not install by themselves: better here than in a closed room.

    Raises:
        MedmindError: pip lacks something, or is not there.
    """
    asked = ["install", "--dry-run", "--ignore-installed", "--no-index", "--find-links", str(folder), requirement]
    done = subprocess.run(
        [sys.executable, "-m", "pip", "--disable-pip-version-check", *asked],
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        lines = [line for line in done.stderr.splitlines() if line.startswith("ERROR")] or done.stderr.splitlines()
        raise MedmindError(
            f"the wheels would not install: {lines[0] if lines else 'pip gives no reason'}",
            "install medmind again, so that what it needs is here",
        )


def _add(archive: zipfile.ZipFile, name: str, data: bytes) -> None:
    entry = zipfile.ZipInfo(name)  # of 1980: the same files make the same wheel
    entry.external_attr = 0o644 << 16
    entry.compress_type = zipfile.ZIP_DEFLATED
    archive.writestr(entry, data)


def _digest(data: bytes) -> str:
    return "sha256=" + base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b"=").decode()


def _word(text: str) -> str:
    """A part of a wheel's file name (PEP 427)."""
    return re.sub(r"[^\w.+!]+", "_", text)


def _tag(tags: list[str]) -> str:
    """The compressed tag set of a wheel's file name."""
    parts = [tag.strip().split("-") for tag in tags]
    return "-".join(".".join(dict.fromkeys(part[place] for part in parts)) for place in range(3))


def _build(package: Package, source: Path, folder: Path) -> Path:
    """A wheel of a source tree."""
    if importlib.util.find_spec("hatchling") is None:
        raise MedmindError(
            f"{package.name} is installed from {source}, and hatchling, which builds it, is not here",
            "pip install hatchling",
        )
    before = set(folder.iterdir())
    done = subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder.resolve())],
        cwd=source,
        capture_output=True,
        text=True,
        check=False,
    )
    made = [path for path in folder.iterdir() if path not in before and path.suffix == ".whl"]
    if done.returncode or len(made) != 1:
        raise MedmindError(f"{source} could not be built: {done.stderr.strip().splitlines()[-1:]}", "see pip wheel .")
    return made[0]
