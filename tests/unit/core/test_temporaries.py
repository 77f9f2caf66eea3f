"""Temporaries next to their targets: swept after a kill, and only then, and only those with our mark."""

import errno
import fcntl
import itertools
import os
import platform
import subprocess
import sys
from pathlib import Path

import pytest

from tests import no_locks
from tests.conftest import ROOT
from tests.folders import names
from tests.kills import killed_at
from tuneyard.core.files import atomic, publish, recovered, reserved, staging, temporaries, write_text
from tuneyard.core.files.temporaries import (
    locked,
    remove_folder,
    size_of,
    sweep,
    temporary_file,
    temporary_folder,
)

DEAD = ".a.txt.tuneyard-0123456789abcdef"


def write_file(folder: Path) -> None:
    write_text(folder / "a.txt", "new")


def publish_folder(folder: Path) -> None:
    with recovered(folder):
        pass
    with staging(folder / "set") as stage:
        write_text(stage / "below/a.txt", "new")
        with locked(folder):
            publish(stage, folder / "set")


@pytest.mark.parametrize("work", [write_file, publish_folder])
def test_a_kill_at_each_step_leaves_nothing_hidden_after_the_next_command(tmp_path: Path, work) -> None:
    left = 0
    for step in itertools.count(1):
        is_killed = killed_at(step, tmp_path, lambda: work(tmp_path))
        left += len([name for name in names(tmp_path) if name.startswith(".")])
        work(tmp_path)
        assert len(names(tmp_path)) == 1 and not names(tmp_path)[0].startswith(".")
        if not is_killed:
            break
    assert left


@pytest.mark.parametrize(
    "begin",
    [
        lambda folder: write_text(folder / "other.json", "x"),
        lambda folder: staging(folder / "set").__enter__(),
        lambda folder: reserved(folder).__enter__(),
        lambda folder: recovered(folder).__enter__(),
    ],
    ids=["a file", "a folder beside it", "the folder", "a registry"],
)
def test_each_way_to_write_removes_what_the_dead_left_whatever_its_target(tmp_path: Path, begin) -> None:
    (tmp_path / DEAD).write_text("half")
    (tmp_path / ".set.v1 两.tuneyard-00000000000000ff/below").mkdir(parents=True)
    (tmp_path / ".set.v1 两.tuneyard-00000000000000ff/below/x").write_text("half")
    begin(tmp_path)
    assert not {DEAD, ".set.v1 两.tuneyard-00000000000000ff"} & {*names(tmp_path)}


SIMILAR = (
    ".a.txt.swp",
    ".a.txt.1a2b3c4d",
    ".a.txt.tuneyard-backup",
    ".a.txt.tuneyard-0123456789abcde",
    ".a.txt.tuneyard-0123456789abcdef0",
    ".a.txt.tuneyard-0123456789ABCDEF",
    ".a.txt.tuneyard-0123456789abcdef.txt",
    "a.txt.tuneyard-0123456789abcdef",
    ".tuneyard-0123456789abcdef",
    ".a.txt.tuneyard-01234567-89abcdef",
)


def test_what_a_user_named_in_a_similar_way_stays(tmp_path: Path) -> None:
    for number, name in enumerate(SIMILAR):
        if number % 2:
            (tmp_path / name).mkdir()
        else:
            (tmp_path / name).write_text("mine")
    write_file(tmp_path)
    publish_folder(tmp_path)
    assert {*names(tmp_path)} == {*SIMILAR, "a.txt", "set"}


def test_links_and_pipes_with_our_mark_stay_and_nothing_is_followed(tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "precious").write_text("x")
    out = tmp_path / "out"
    out.mkdir()
    (out / ".a.tuneyard-0000000000000001").symlink_to(elsewhere)
    (out / ".a.tuneyard-0000000000000002").symlink_to(elsewhere / "precious")
    os.mkfifo(out / ".a.tuneyard-0000000000000003")
    (out / ".a.tuneyard-0000000000000004").mkdir()
    (out / ".a.tuneyard-0000000000000004/link").symlink_to(elsewhere)
    (out / ".a.tuneyard-new").symlink_to(elsewhere)
    (out / ".a.tuneyard-old").symlink_to(elsewhere)
    before = names(out)
    write_file(out)
    publish_folder(out)
    assert names(elsewhere) == ["precious"]
    assert {*before} - {*names(out)} == {".a.tuneyard-0000000000000004"}


def test_what_a_living_process_writes_stays(tmp_path: Path) -> None:
    with atomic(tmp_path / "a.txt") as file, staging(tmp_path / "set") as stage:
        file.write(b"new")
        (stage / "x").write_text("new")
        assert not killed_at(10**6, tmp_path, lambda: write_text(tmp_path / "b.txt", "other"))
        assert not killed_at(10**6, tmp_path, lambda: publish_folder(tmp_path))
        assert names(stage) == ["x"]
    assert (tmp_path / "a.txt").read_text() == "new"
    assert names(tmp_path) == ["a.txt", "b.txt", "set"]


@pytest.mark.parametrize("make", [temporary_file, temporary_folder])
def test_a_temporary_that_is_swept_before_its_lock_is_made_again(tmp_path, monkeypatch, make) -> None:
    """Between open(2) and flock(2) another command finds it unlocked."""
    lock, swept = temporaries._lock, []

    def late(handle: int, how: int) -> bool:
        if not swept and how == fcntl.LOCK_EX:
            swept.append("")
            swept.extend(sweep(tmp_path))
        return lock(handle, how)

    monkeypatch.setattr(temporaries, "_lock", late)
    with make(tmp_path / "a") as made:
        path = made if make is temporary_folder else made[0]
        assert len(swept) == 2 and names(tmp_path) == [path.name] != swept[1:]
    assert names(tmp_path) == []


WRITE_AND_PUBLISH = """
import sys
from pathlib import Path
from tuneyard.core.files import publish, recovered, staging, write_text
from tuneyard.core.files.temporaries import locked
folder = Path(sys.argv[1])
for number in range(40):
    write_text(folder / "a.txt", "whole\\n" * 1000)
    with staging(folder / "set") as stage:
        for name in "abc":
            write_text(stage / name, str(number))
        with locked(folder):
            publish(stage, folder / "set")
    if number % 9 == 0:
        with recovered(folder):
            pass
"""


def test_four_commands_at_once_in_one_folder_fail_in_nothing_and_leave_nothing(tmp_path: Path) -> None:
    command = [sys.executable, "-c", WRITE_AND_PUBLISH, str(tmp_path)]
    processes = [subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, text=True) for _ in range(4)]
    assert [process.communicate()[1] for process in processes] == [""] * 4
    assert names(tmp_path) == ["a.txt", "set"] and names(tmp_path / "set") == ["a", "b", "c"]
    assert (tmp_path / "a.txt").read_text() == "whole\n" * 1000
    assert len({(tmp_path / "set" / name).read_text() for name in "abc"}) == 1


def test_a_folder_that_another_process_deletes_too_is_gone(tmp_path: Path, monkeypatch) -> None:
    folder = tmp_path / "set"
    for number in range(20):
        (folder / f"{number}").mkdir(parents=True)
    rmdir = os.rmdir
    turns = itertools.count()

    def lost(path, **options):
        rmdir(path, **options)
        if next(turns) % 7 == 0:  # the other process was faster
            rmdir(path, **options)

    monkeypatch.setattr(os, "rmdir", lost)
    remove_folder(folder)
    assert names(tmp_path) == []


@pytest.mark.parametrize(
    "name", ["a" * 255, "数据" * 42 + "a", "a" * 228, "a" * 229, "a" * 230], ids=lambda name: str(len(name))
)
def test_a_target_may_have_the_longest_name(tmp_path: Path, name: str) -> None:
    write_text(tmp_path / name, "x")
    publish_folder(tmp_path)
    with staging(tmp_path / name) as stage:
        assert len(os.fsencode(stage.name)) <= 255
        left = stage.name
    (tmp_path / left).mkdir()
    with pytest.raises(PermissionError) as refused, staging(tmp_path / name) as stage:
        raise PermissionError(13, "Permission denied", str(stage / "a/b.json"))
    assert refused.value.filename == str(tmp_path / name / "a/b.json")
    assert names(tmp_path) == sorted([name, "set"])


needs_filter = pytest.mark.skipif(
    platform.machine() not in no_locks.FLOCK, reason="the number of flock(2) is unknown here"
)
WITHOUT_LOCKS = """
import sys
from pathlib import Path
from tests.no_locks import refuse_locks
from tests.unit.core.test_temporaries import publish_folder, write_file
from tuneyard.core.files import reserved
refuse_locks(int(sys.argv[2]))
folder = Path(sys.argv[1])
write_file(folder)
publish_folder(folder)
with reserved(folder / "set"):
    pass
"""


@needs_filter
@pytest.mark.parametrize("error", [errno.ENOLCK, errno.EBADF, errno.EOPNOTSUPP])
def test_without_locks_commands_write_and_say_so_and_sweep_nothing(tmp_path: Path, error: int) -> None:
    """The writer of an unlocked file may live: NFS answers EBADF for folders, other systems ENOLCK."""
    (tmp_path / DEAD).write_text("half")
    (tmp_path / ".set.tuneyard-00000000000000ff").mkdir()
    command = [sys.executable, "-c", WITHOUT_LOCKS, str(tmp_path), str(error)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    if "seccomp is not possible" in done.stderr:
        pytest.skip("no seccomp here")
    assert done.returncode == 0, done.stderr
    assert names(tmp_path) == [DEAD, ".set.tuneyard-00000000000000ff", "a.txt", "set"]
    warned = [
        line.partition(": its file system has no locks (flock)")[0] for line in done.stderr.splitlines()
    ]
    assert set(warned) == {f"warning: {tmp_path}", f"warning: {tmp_path}/set"}


def test_another_error_of_a_lock_is_an_error(tmp_path: Path) -> None:
    handle = os.open(tmp_path, os.O_RDONLY)
    os.close(handle)
    with pytest.raises(ValueError, match="-1"):
        temporaries._lock(-1, fcntl.LOCK_EX)


def test_what_may_not_be_removed_stops_no_command(tmp_path: Path) -> None:
    """Root may remove everything: another user's process tries."""
    shared = tmp_path / "shared"
    shared.mkdir()
    dead = shared / DEAD
    dead.write_text("half")
    dead.chmod(0o400)
    shared.chmod(0o555)
    child = os.fork()
    if not child:
        code = 1
        try:
            if os.geteuid() == 0:
                os.setuid(65534)
            code = 0 if sweep(shared) == {} and sweep(shared / "gone") == {} else 2
            try:
                write_text(shared / "b.txt", "x")
                code = 3
            except PermissionError as error:
                code = code if error.filename == str(shared / "b.txt") else 4
        finally:
            os._exit(code)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert names(shared) == [DEAD]
    shared.chmod(0o755)


def test_the_bytes_of_what_was_removed_are_counted(tmp_path: Path) -> None:
    (tmp_path / DEAD).write_bytes(b"x" * 7)
    folder = tmp_path / ".b.tuneyard-00000000000000ff"
    (folder / "below").mkdir(parents=True)
    (folder / "x").write_bytes(b"x" * 100)
    (folder / "below/y").write_bytes(b"x" * 20)
    (folder / "link").symlink_to(__file__)
    assert sweep(tmp_path) == {DEAD: 7, folder.name: 120}


def test_a_folder_that_goes_while_it_is_measured_counts_nothing(tmp_path: Path, monkeypatch) -> None:
    """The process that published has removed the old folder meanwhile."""
    folder = tmp_path / ".b.tuneyard-00000000000000ff"
    (folder / "below").mkdir(parents=True)
    (folder / "x").write_bytes(b"x" * 100)
    scandir = os.scandir

    def late(path):
        if Path(path).name == "below":
            Path(path).rmdir()
        return scandir(path)

    monkeypatch.setattr(os, "scandir", late)
    assert size_of(folder) == 100
