"""`medmind-bench` run in the test's own process, as from a shell; the cells it starts are processes as ever."""

import io
import logging
import signal
import subprocess
from contextlib import chdir, redirect_stderr, redirect_stdout
from pathlib import Path

import pytest

from medmind_benchmarks import cli, report_files


def medmind_bench(
    *arguments: object, cwd: Path | None = None, pages: bool = True
) -> "subprocess.CompletedProcess[str]":
    """Run it, and give what it printed and its exit code. Without `pages`, only a report's JSON is written."""
    words = ["medmind-bench", *map(str, arguments)]
    out, err = io.StringIO(), io.StringIO()
    code: object = 0
    level, terminated = logging.getLogger().level, signal.getsignal(signal.SIGTERM)
    with pytest.MonkeyPatch.context() as patch, chdir(cwd or "."), redirect_stdout(out), redirect_stderr(err):
        patch.setattr("sys.argv", words)
        if not pages:
            patch.setattr(report_files, "write", lambda report, folder: None)
        try:
            cli.main()
        except SystemExit as end:
            code = end.code
        finally:
            logging.getLogger().setLevel(level)
            signal.signal(signal.SIGTERM, terminated)
    return subprocess.CompletedProcess(words, code if isinstance(code, int) else 0, out.getvalue(), err.getvalue())
