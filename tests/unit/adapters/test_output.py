"""What comes to --out while a command works, and what killed runs left: nothing of anybody's is lost."""

import errno
from pathlib import Path

import pytest

from tests.folders import names
from tests.json_files import read_json, write_json
from tests.messages import raises
from tests.unit.adapters.commands import call
from tests.unit.adapters.llama import make_llama
from tests.unit.adapters.make import factors, make
from tuneyard.adapters.export.gguf_files import GgufRequest, export_gguf, write_gguf
from tuneyard.adapters.fuse import fuse as fusing
from tuneyard.adapters.merge import merge as merging
from tuneyard.adapters.model.store import open_adapter
from tuneyard.core.errors import RequestError
from tuneyard.core.files import HeldError

pytestmark = pytest.mark.usefixtures("two_adapters")


def merge(meanwhile, force=False):
    """Merge, with something else happening at the first bytes written."""
    request = merging.MergeRequest([("rte", 1.0)], Path("out"), force=force)
    return merging.write_merge(merging.plan_merging(request), meanwhile, [])


def fuse(meanwhile, force=False):
    """Fuse, with something else happening at the first bytes written."""
    request = fusing.FuseRequest([("rte", 1.0)], Path("base"), Path("out"), force=force)
    return fusing.write_model(fusing.plan_fusing(request), meanwhile, [])


def trained(_count):
    """Let a training end in the output's place."""
    make("out", factors(7))


@pytest.mark.parametrize("work", [merge, fuse])
def test_what_comes_while_a_command_works_is_kept_with_its_result(work):
    with raises(RequestError, "out", "out-2"):
        work(trained)
    assert open_adapter("./out").digest == open_adapter(make("same", factors(7))).digest
    files = {path: path.read_bytes() for path in Path("out-2").iterdir()}
    assert set(names(".")) == {"base", "out", "out-2", "same", "saves"}
    Path("out").rename("mine")
    work(lambda _: None)
    assert names("out") == names("out-2")
    assert all(Path("out", path.name).read_bytes() == content for path, content in files.items())


def test_two_fusions_do_not_write_into_one_folder():
    def again(_count):
        with raises(HeldError, "out", "another command is writing there"):
            fuse(pytest.fail)

    fuse(again)


@pytest.mark.parametrize("work", [merge, fuse])
def test_force_is_for_what_lay_there_and_not_for_what_came(work):
    work(lambda _: None)

    def replaced(_count):
        if Path("out/README.md").exists():
            Path("out").rename("old")
            trained(0)

    with raises(RequestError, "--force", "out-2"):
        work(replaced, force=True)
    assert open_adapter("./out").digest == open_adapter(make("same", factors(7))).digest
    assert names("old") == names("out-2")


@pytest.mark.parametrize("work", [merge, fuse])
def test_a_full_disk_is_named(work, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    def full_by_a_copy(*_):
        raise OSError(errno.ENOSPC, "No space left on device", "source", None, ".out.staged")

    Path("saves/rte/tokenizer.json").write_text("{}")
    monkeypatch.setattr(Path, "write_bytes", full)
    for meanwhile in (full, full_by_a_copy, lambda _: None):
        with pytest.raises(OSError, match="No space left") as error:
            work(meanwhile)
        assert error.value.filename == str(Path("out").resolve())


@pytest.mark.parametrize("work", [merge, fuse])
def test_force_keeps_files_that_the_command_does_not_write(work):
    Path("base/LICENSE").write_text("carried by fuse")
    work(lambda _: None)
    work(lambda _: None, force=True)
    Path("out/notes.txt").write_text("mine")
    with raises(RequestError, "out", "notes.txt", "--force"):
        work(lambda _: None, force=True)
    assert Path("out/notes.txt").read_text() == "mine"
    assert "out-2" not in names(".")


@pytest.mark.parametrize("work", [merge, fuse])
def test_what_came_before_the_first_byte_costs_no_work(work, monkeypatch):
    module, planned = {merge: (merging, "plan_merging"), fuse: (fusing, "plan_fusing")}[work]
    plan = getattr(module, planned)

    def late(request):
        found = plan(request)
        trained(0)
        return found

    monkeypatch.setattr(module, planned, late)
    with raises(RequestError, "out", "--out"):
        work(lambda _: pytest.fail("worked"))
    assert set(names(".")) == {"base", "out", "saves"}


@pytest.mark.parametrize("work", [merge, fuse])
def test_training_records_are_read_before_the_first_byte_is_written(work):
    data = [{"dataset": "rte", "file": "x/rte.json", "sha256": "0" * 64}]
    record = Path("saves/rte/training.json")
    write_json(record, {"inputs": {"settings": {"dataset": "rte"}, "data": data}})
    work(lambda _: record.unlink(missing_ok=True))
    assert read_json(Path("out/merge.json"))["adapters"][0]["datasets"] == data


def test_a_file_that_comes_while_a_gguf_is_written_is_kept(monkeypatch):
    make_llama()
    request = GgufRequest("./model", Path("m.gguf"), type="f16")

    def interrupted(plan, about, path, say):
        write_gguf(plan, about, path, say)
        Path("m.gguf").write_text("mine")

    with monkeypatch.context() as patch:
        patch.setattr("tuneyard.adapters.export.gguf_files.write_gguf", interrupted)
        with raises(RequestError, "m.gguf", "m-2.gguf"):
            export_gguf(request)
    assert Path("m.gguf").read_text() == "mine"
    Path("m.gguf").unlink()
    call("export", "./model", "--to", "gguf", "--out", "m.gguf")
    assert Path("m.gguf").read_bytes() == Path("m-2.gguf").read_bytes()
    assert not [name for name in names(".") if name.startswith(".")]


def leave(name):
    """Leave a folder as a killed run does: its lock is gone, its name stays."""
    Path(name).mkdir(parents=True)
    Path(name, "model.safetensors.partial").write_bytes(bytes(3_000_000))


COMMANDS = [
    ["merge", "rte=1", "--out", "x"],
    ["fuse", "rte", "--base", "base", "--out", "x"],
    ["export", "./model", "--to", "gguf", "--out", "x"],
]


@pytest.mark.parametrize("words", COMMANDS, ids=str)
def test_what_killed_runs_left_is_removed_and_said(words):
    make_llama()
    left = [".m.gguf.tuneyard-0123456789abcdef", ".old.tuneyard-fusing"]
    for name in left:
        leave(name)
    Path("mine").mkdir()
    Path(".y.tuneyard-old").symlink_to("mine")
    said = call(*words)[1]
    for name in left:
        assert f"note: removed {name}, 0.00 GB of a killed run\n" in said
    assert set(names(".")) == {"base", "mine", "model", "saves", "x", ".y.tuneyard-old"}


def test_what_killed_runs_left_counts_as_free_space(monkeypatch):
    usage = type("Usage", (), {"free": 10})
    monkeypatch.setattr("shutil.disk_usage", lambda _: usage)
    assert "has 10 bytes free" in call("fuse", "rte", "--base", "base", "--out", "x", code=2)[1]
    leave(".x.tuneyard-fusing")
    call("fuse", "rte", "--base", "base", "--out", "x")
