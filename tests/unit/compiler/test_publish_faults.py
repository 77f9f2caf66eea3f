"""Killed, crowded, full: a compile leaves the old set or the new, never a mix, never a broken registry."""

import contextlib
import itertools
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import ROOT
from tests.folders import names
from tests.held import Held
from tests.kills import killed_at
from tests.unit.compiler.conftest import ROWS
from tuneyard.compiler.publish.registry import Registry
from tuneyard.core.datasets import read_registry

ADD = "tuneyard.compiler.write.record_file.RecordFile.add"
"""Writes some rows of an output."""
COMPILE = [sys.executable, "-m", "compiler", "compile"]


def many(count: int, word: str) -> list[dict]:
    return [ROWS[0] | {"idx": n, "sentence1": f"{word} {n}."} for n in range(count)]


def start(*args: object) -> subprocess.Popen:
    return subprocess.Popen(
        [*COMPILE, *map(str, args)], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )


@pytest.mark.slow
def test_two_compiles_at_once_both_end_registered(bench):
    rte = bench.rows("rte.jsonl", many(2000, "one"))
    mnli = bench.rows("mnli.jsonl", many(2000, "two"))
    runs = [("rte", rte), ("mnli", mnli), ("rte", rte)]
    processes = [
        start(name, "--source", f"train={path}", "--out", bench.out, "--force") for name, path in runs
    ]
    assert [process.wait() for process in processes] == [0, 0, 0]
    assert set(read_registry(bench.out)) == {"alpaca_rte_train", "alpaca_mnli_train"}
    assert names(bench.out) == ["dataset_info.json", "mnli", "rte"]


def interrupted(bench, sent: signal.Signals) -> str:
    """What a compile printed that was sent a signal while it wrote."""
    source = bench.rows("long.jsonl", many(200, "long " * 10_000))  # more than is written at once
    words = ["compile", "rte", "--source", f"train={source}", "--out", bench.out / "new"]
    return Held(ADD, 2, "compiler", *words).ended_by(sent)


@pytest.mark.parametrize("sent", [signal.SIGTERM, signal.SIGINT])
def test_an_interrupted_compile_leaves_no_folder_behind(bench, sent):
    said = interrupted(bench, sent)
    assert not bench.out.exists()
    if sent == signal.SIGINT:
        last_line = said.splitlines()[-1]
        assert last_line.startswith("interrupted; ") and "the same command starts again" in last_line


def test_what_a_killed_first_compile_leaves_the_next_one_sweeps(bench):
    interrupted(bench, signal.SIGKILL)
    assert list((bench.out / "new").glob(".rte.tuneyard-*"))
    bench.compile_rows("mnli", many(3, "x"), out=bench.out / "new")
    assert names(bench.out / "new") == ["dataset_info.json", "mnli"]


@pytest.fixture
def read_only(bench):
    """Return how to make the folder `fixed` one that takes no writing, even from root."""
    folder = bench.folder / "fixed"
    folder.mkdir()
    mounted = os.geteuid() == 0
    mount = ["mount", "-t", "tmpfs", "tmpfs", folder]
    if mounted and subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("tmpfs cannot be mounted here, and root writes into any folder")
    yield (
        lambda: (
            subprocess.run(["mount", "-o", "remount,ro", folder], check=True)
            if mounted
            else folder.chmod(0o555)
        )
    )
    if mounted:
        subprocess.run(["umount", folder], check=True)
    else:
        folder.chmod(0o755)


@pytest.mark.parametrize("compiled_before", [False, True])
def test_a_read_only_folder_is_one_clear_line(bench, run, read_only, compiled_before):
    fixed = bench.folder / "fixed"
    source = bench.rows("train.jsonl", many(3, "x"))
    if compiled_before:
        bench.compile("rte", source, out=fixed)
    read_only()
    before = sorted(fixed.rglob("*"))
    said = run(
        "-m", "compiler", "compile", "rte", "--source", source, "--out", fixed, "--force", code=2
    ).stderr
    assert len(said.splitlines()) == 1 and str(fixed) in said
    assert "Read-only file system" in said or "Permission denied" in said
    assert sorted(fixed.rglob("*")) == before


@pytest.mark.parametrize(
    ("link", "out"), [("out", "out"), ("out", "out/below"), ("out/dataset_info.json", "out")]
)
def test_a_loop_of_links_in_the_way_is_named(bench, link, out):
    loop = bench.folder / link
    loop.parent.mkdir(exist_ok=True)
    loop.symlink_to(loop)
    with pytest.raises(OSError, match="symbolic links") as error:
        bench.compile_rows("rte", many(3, "x"), out=bench.folder / out)
    assert error.value.filename.startswith(str(loop))
    assert loop.is_symlink() and list(bench.folder.rglob("*rte*")) == []


@pytest.mark.slow
def test_a_line_of_fifteen_megabytes_and_a_deep_one(bench):
    long = json.dumps(ROWS[0] | {"sentence1": "long " * 3_000_000})
    deep = "[" * 100_000
    report = bench.compile("rte", bench.write("train.jsonl", f"{long}\n{deep}\n"))
    assert bench.codes(report)[0] == ("E002", "train.jsonl:2")


@pytest.fixture
def small_disk(bench):
    """The folder of the bench's output, on a disk of 1 MB."""
    bench.out.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", bench.out]
    if os.geteuid() or subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("no disk can be mounted here")
    yield bench.out
    subprocess.run(["umount", bench.out], check=True)


def fill(folder: Path) -> None:
    """Write into `ballast` until the disk takes no more byte, and no other file that has one."""
    with (folder / "ballast").open("wb", buffering=0) as file, contextlib.suppress(OSError):
        while True:
            file.write(b"x" * 4096)
    with pytest.raises(OSError, match="No space left"):
        (folder / "more").write_bytes(b"x")
    (folder / "more").unlink()


@pytest.mark.parametrize("is_registered", [True, False])
def test_a_full_disk_is_freed_by_removing_a_dataset(bench, small_disk, is_registered):
    bench.compile_rows("rte", many(1000, "large"))
    bench.compile_rows("mnli", many(3, "x"))
    if not is_registered:  # the compile filled the disk, and could not write its entry
        (small_disk / "dataset_info.json").write_text("{}")
    fill(small_disk)
    free = os.statvfs(small_disk).f_bavail
    command = [sys.executable, "-m", "compiler", "remove", "rte", "--now", "--out", str(small_disk)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert names(small_disk) == ["ballast", "dataset_info.json", "mnli"]
    assert set(read_registry(small_disk)) == {"alpaca_mnli_train"}
    assert os.statvfs(small_disk).f_bavail > free


def test_a_removal_on_a_full_disk_that_was_killed_is_finished_by_the_same_command(bench, small_disk):
    source = bench.rows("rte.jsonl", many(1000, "large"))
    states = set()
    for step in itertools.count(1):
        bench.compile("rte", f"train={source}", force=True)
        fill(small_disk)
        is_killed = killed_at(step, small_disk, lambda: Registry(small_disk).delete("rte"))
        states.add(" ".join(names(small_disk / "rte")) if (small_disk / "rte").is_dir() else "gone")
        if "rte" in Registry(small_disk).manifests:
            Registry(small_disk).delete("rte")
        Registry(small_disk).finish_publications()
        assert names(small_disk) == ["ballast", "dataset_info.json"] and read_registry(small_disk) == {}
        (small_disk / "ballast").unlink()
        if not is_killed:
            break
    assert {"manifest.json", "gone"} < states
