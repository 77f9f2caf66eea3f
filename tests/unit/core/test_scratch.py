"""Temporary folders: removed in the end, and after a kill by the next command."""

import itertools
import os
import tempfile
from pathlib import Path

import pytest

from tests.folders import names
from tests.kills import killed_at
from tuneyard.core.files.scratch import scratch_folder

ABANDONED = "tuneyard-0123456789abcdef"


@pytest.fixture(autouse=True)
def temporary(tmp_path, monkeypatch) -> Path:
    """The folder of temporary folders."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path


def write_files() -> None:
    with scratch_folder() as folder:
        (folder / "below").mkdir()
        (folder / "below/copy.db").write_bytes(b"x" * 1000)


def test_a_folder_is_ones_own_and_removed_in_the_end(temporary) -> None:
    with scratch_folder() as folder:
        assert folder.parent == temporary and folder.stat().st_mode & 0o777 == 0o700
        with scratch_folder() as other:
            assert other != folder and folder.is_dir()
    with pytest.raises(ZeroDivisionError), scratch_folder():
        raise ZeroDivisionError
    assert names(temporary) == []


def test_a_kill_at_each_step_leaves_nothing_after_the_next_command(temporary) -> None:
    left = 0
    for step in itertools.count(1):
        is_killed = killed_at(step, temporary, write_files)
        left += len(names(temporary))
        write_files()
        assert names(temporary) == []
        if not is_killed:
            break
    assert left >= 4


def test_a_folder_in_use_and_what_others_made_stay(temporary, tmp_path_factory) -> None:
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    (elsewhere / "precious").touch()
    for name in ("tuneyard-notes", "tuneyard-0123456789abcdef-old", "tuneyard-0123456789ABCDEF"):
        (temporary / name).mkdir()
    (temporary / "tuneyard-00000000000000ff").symlink_to(elsewhere)
    (temporary / "tuneyard-11111111111111ff").write_text("a file")
    before = names(temporary)
    with scratch_folder() as folder:
        assert not killed_at(10**6, temporary, write_files)  # another process
        assert folder.is_dir()
    assert names(temporary) == before and names(elsewhere) == ["precious"]


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can make folders of another user")
def test_the_folder_of_another_user_stays(temporary) -> None:
    (temporary / ABANDONED).mkdir()
    os.chown(temporary / ABANDONED, 12345, 12345)
    write_files()
    assert names(temporary) == [ABANDONED]
