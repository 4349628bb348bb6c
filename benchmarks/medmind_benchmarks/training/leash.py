"""Runs a command until it ends, or until whoever asked for it is gone: `python leash.py COMMAND…`.

The other end of its stdin is that one's; when it closes, however its owner died, the command and all that it started
are killed (on Windows the command alone). Knows nothing of what is run. A file of its own, run by its path, so that
starting it costs no imports.
"""

import contextlib
import os
import signal
import subprocess
import sys
import threading


def main() -> None:
    """Run the command, and end as it ended: with its exit code, or by its signal."""
    process = subprocess.Popen(sys.argv[1:], stdin=subprocess.DEVNULL)
    threading.Thread(target=_end_with_owner, args=(process,), daemon=True).start()
    code = process.wait()
    if code < 0:
        with contextlib.suppress(OSError):  # SIGKILL has no other handler
            signal.signal(-code, signal.SIG_DFL)
        os.kill(os.getpid(), -code)
    sys.exit(code)


def _end_with_owner(process: "subprocess.Popen[bytes]") -> None:
    os.read(0, 1)  # not through sys.stdin, whose lock the end of the interpreter would ask for
    if sys.platform == "win32":
        process.kill()
        os._exit(1)
    os.killpg(os.getpgrp(), signal.SIGKILL)


if __name__ == "__main__":
    main()
