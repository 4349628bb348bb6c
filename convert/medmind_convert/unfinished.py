"""What becomes of files in the making when their conversion ends before they are whole. Makes no file itself."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from medmind import console, disk_errors
from medmind.errors import MedmindError
from medmind_convert.ggml import GgmlError
from medmind_convert.partial import Partial


@contextmanager
def looked_after(outputs: Sequence[Partial], fresh: Sequence[Path]) -> Iterator[None]:
    """Keep what another start can go on with, and remove what it cannot.

    What was finished stays when the disk, the memory, libggml, the user or the system ended the work. Nothing stays
    when the work was refused, or an input changed: another start would come to the same end, or begin anew.

    Args:
        outputs: the files; may grow while the block runs.
        fresh: directories that were made for them, innermost first: removed again where nothing lies in them.

    Raises:
        MedmindError: also for what the disk, the memory and libggml did, with what was kept.
    """
    try:
        yield
    except GgmlError as error:
        raise MedmindError(error.message, _kept(outputs, fresh) or error.hint) from error
    except MedmindError:
        discard(outputs, fresh)
        raise
    except OSError as error:
        kept = _kept(outputs, fresh)
        where = error.filename or (outputs[0].path.parent if outputs else "")
        way_on = disk_errors.WAYS_ON.get(error.errno or 0)
        hint = "; ".join(filter(None, (way_on, kept or (way_on and "nothing was finished, nothing is kept"))))
        raise MedmindError(f"{where}: {error.strerror or error}" if where else str(error), hint) from error
    except MemoryError as error:
        kept = _kept(outputs, fresh)
        raise MedmindError("the memory is full", kept or "close other programs, or take fewer --threads") from error
    except BaseException:
        kept = _kept(outputs, fresh)
        if kept:
            console.note(kept)
        raise


def make_directory(path: Path) -> list[Path]:
    """Make a directory; returns what was missing of it, innermost first."""
    fresh = [folder for folder in (path, *path.parents) if not folder.exists()]
    path.mkdir(parents=True, exist_ok=True)
    return fresh


def discard(outputs: Sequence[Partial], fresh: Sequence[Path]) -> None:
    """Remove what has been written, and the directories that were made for it."""
    for output in outputs:
        output.discard()
    for path in fresh:
        with suppress(OSError):  # others may have put something there, or removed it
            path.rmdir()


def _kept(outputs: Sequence[Partial], fresh: Sequence[Path]) -> str:
    """Keep what is worth resuming; returns how, or nothing."""
    done = sum(len(output.done) for output in outputs)
    if not done:
        discard(outputs, fresh)
        return ""
    for output in outputs:
        output.close()
    return f"{done} finished tensors are kept in {outputs[0].path.parent}: start the same command again to go on"
