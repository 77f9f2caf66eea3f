"""A busy machine is no failure: a single example has no deadline. And two runs to compare."""

from pathlib import Path

import pytest
from hypothesis import settings

settings.register_profile("steady", deadline=None)
settings.load_profile("steady")


@pytest.fixture
def two_runs(tmp_path: Path) -> Path:
    """results/base/s and results/a/s, twenty rows."""
    from tests.fake_runs import GOLD, answers, write_run

    write_run(tmp_path / "results", "a", "s", GOLD, answers(GOLD, 15, 1))
    write_run(tmp_path / "results", "base", "s", GOLD, answers(GOLD, 11, 2))
    return tmp_path / "results"
