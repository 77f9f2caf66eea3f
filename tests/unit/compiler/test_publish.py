"""What is published lies on the disk first: each file is synced before the name that leads to it."""

import os
import sys
from pathlib import Path

import pytest

from tests.folders import names
from tests.processes import on_a_full_disk
from tests.runs_cut import tree
from tests.unit.compiler.conftest import ROWS
from tuneyard.compiler.publish.registry import Registry
from tuneyard.compiler.write.record_file import RecordFile
from tuneyard.core import files
from tuneyard.core.files import atomic, publish, temporaries, write_text


@pytest.fixture
def events(monkeypatch):
    """Every sync and every renaming of this process in order, as (what, name of the file or folder)."""
    seen = []
    fsync, rename, replace, exchange = os.fsync, os.rename, os.replace, files._exchange

    def synced(handle):
        seen.append(("sync", Path(f"/proc/self/fd/{handle}").readlink().name))
        fsync(handle)

    def renaming(way):
        def done(old, new):
            seen.append(("name", Path(new).name))
            return way(old, new)

        return done

    monkeypatch.setattr(os, "fsync", synced)
    monkeypatch.setattr(os, "rename", renaming(rename))
    monkeypatch.setattr(os, "replace", renaming(replace))
    monkeypatch.setattr(files, "_exchange", renaming(exchange))
    return seen


def before(events, *wanted):
    """Tell whether all of these events happened, in this order."""
    rest = iter(events)
    return all(event in rest for event in wanted)


def test_an_atomic_file_is_synced_before_and_its_folder_after_it_gets_its_name(tmp_path, events):
    write_text(tmp_path / "a.txt", "x")
    assert [what for what, _ in events] == ["sync", "name", "sync"]
    assert events[0][1].startswith(".a.txt.") and events[1:] == [("name", "a.txt"), ("sync", tmp_path.name)]


@pytest.mark.parametrize("way", ["new", "exchanged", "renamed twice"])
def test_a_stage_is_synced_whole_before_and_its_parent_after_it_is_published(
    tmp_path, events, monkeypatch, way
):
    target, stage = tmp_path / "set", tmp_path / "stage"
    (stage / "below").mkdir(parents=True)
    for name in ("a", "below/b"):
        (stage / name).write_text("x")
    if way != "new":
        target.mkdir()
    if way == "renamed twice":
        monkeypatch.setattr(files, "_exchange", lambda *_: False)
    publish(stage, target)
    for synced in ("a", "b", "stage"):
        assert before(events, ("sync", synced), ("name", "set"), ("sync", tmp_path.name))


def test_all_that_a_compile_writes_is_synced_before_it_is_published(bench, events):
    bad = ROWS[0] | {"label": 7}
    bench.compile_rows("rte", [*ROWS, bad], reject=True)
    made = ["alpaca_rte-train.json", "alpaca_rte-train.examples.npy", "manifest.json", "rejected.jsonl"]
    assert names(bench.out / "rte") == sorted(made)
    for name in made:
        assert before(events, ("sync", name), ("name", "rte"), ("sync", "out"), ("name", "dataset_info.json"))
    assert before(events, ("name", "dataset_info.json"), ("sync", "out"))


def test_a_removed_set_is_unregistered_and_its_new_name_synced_before_it_is_deleted(
    bench, events, monkeypatch
):
    bench.compile_rows("rte", ROWS)
    events.clear()
    rmtree = temporaries.shutil.rmtree
    monkeypatch.setattr(
        temporaries.shutil, "rmtree", lambda path: (events.append(("delete", Path(path).name)), rmtree(path))
    )
    Registry(bench.out).delete("rte")
    gone = ".rte.tuneyard-old"
    assert before(events, ("name", "dataset_info.json"), ("name", gone), ("sync", "out"), ("delete", gone))


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
@pytest.mark.parametrize("size", [10, 3_000_000])
def test_a_full_disk_is_named_by_the_file_that_did_not_fit(size):
    with (
        pytest.raises(OSError, match="No space left on device") as error,
        RecordFile(Path("/dev/full")) as file,
    ):
        for _ in range(3):
            file.add(b"x" * size, 1)
    assert error.value.filename == "/dev/full"


def test_what_is_no_error_of_the_disk_keeps_its_own_words(tmp_path):
    with pytest.raises(OSError, match="refused") as error, atomic(tmp_path / "a"):
        raise ConnectionRefusedError(111, "refused")
    assert error.value.filename is None and list(tmp_path.iterdir()) == []


def test_a_compile_that_may_write_no_more_names_the_file(bench):
    bench.compile_rows("rte", ROWS)
    before = tree(bench.out)
    source = bench.rows("train.jsonl", [ROWS[0] | {"idx": n} for n in range(2000)])
    command = ["-m", "compiler", "compile", "rte", "--source", f"train={source}", "--out", bench.out]
    done = on_a_full_disk([sys.executable, *command])
    assert done.returncode == 2 and "Traceback" not in done.stderr
    assert "alpaca_rte-train.json: File too large" in done.stderr and tree(bench.out) == before
