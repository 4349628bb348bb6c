from pathlib import Path

import pytest

from medmind.errors import MedmindError
from medmind.locks import exclusive


def test_one_at_a_time_and_nothing_stays(tmp_path: Path) -> None:
    lock, final = tmp_path / "report.lock", tmp_path / "report"
    for _ in range(2):
        with exclusive(lock, final):
            with pytest.raises(MedmindError, match="another process is writing"), exclusive(lock, final):
                raise AssertionError
            assert lock.exists()
        assert list(tmp_path.iterdir()) == []
