"""What decides the bytes of a compile decides whether it is up to date."""

import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.conftest import ROOT
from tests.plug_ins import documented, installing
from tests.unit.compiler.conftest import as_zip, questions
from tuneyard.compiler.engine import identity
from tuneyard.compiler.publish.listing import dataset_lines
from tuneyard.compiler.publish.registry import Registry
from tuneyard.compiler.read import readers

TALK = "How many? => Three.\n"


@pytest.fixture
def chatlog(tmp_path, monkeypatch):
    """The file of an installed reader of `.chatlog`."""
    with installing(tmp_path / "lib", "tuneyard.readers", monkeypatch, readers) as lay:
        lay("chatlog", documented("@reader"))
        yield next((tmp_path / "lib").rglob("plug_chatlog.py"))


def listed(bench) -> str:
    return next(dataset_lines(Registry(bench.out).finish_publications()))


@pytest.mark.parametrize("packed", [False, True], ids=["plain", "in an archive"])
def test_an_edit_of_a_reader_of_a_plug_in_makes_its_datasets_stale(bench, chatlog, packed):
    source = bench.write("talk.chatlog", TALK)
    if packed:
        source = bench.write("talk.zip", as_zip({"talk.chatlog": TALK}))
    assert not bench.compile("qa", source).up_to_date
    assert bench.compile("qa", source).up_to_date and "stale" not in listed(bench)
    (plugin,) = bench.manifest("qa")["made_from"]["plugins"]
    assert (plugin["name"], plugin["package"]) == ("chatlog", "plug_chatlog 1.2")
    chatlog.write_text(chatlog.read_text() + "# other code\n")
    assert "stale: a plug-in that reads or checks its files has changed" in listed(bench)
    assert not bench.compile("qa", source).up_to_date
    assert bench.compile("qa", source).up_to_date


def test_a_reader_that_reads_no_file_of_a_dataset_does_not_count(bench, chatlog):
    source = bench.rows("train.jsonl", questions(3))
    bench.compile("qa", source)
    chatlog.write_text("raise SystemExit('broken')\n")
    assert bench.compile("qa", source).up_to_date and "stale" not in listed(bench)
    assert bench.manifest("qa")["made_from"]["plugins"] == []


@pytest.mark.parametrize("name", ["python", "orjson", "openpyxl"])
def test_another_library_makes_a_dataset_stale_and_is_named(bench, monkeypatch, name):
    source = bench.rows("train.jsonl", questions(3))
    bench.compile("qa", source)
    before = dict(bench.manifest("qa")["made_from"]["versions"])
    monkeypatch.setattr(identity, "versions", lambda *_: {**before, name: "0.0.1"})
    monkeypatch.setattr(identity.sys, "version", "0.0.1 of a test")
    if name != "python":
        monkeypatch.setattr(identity.sys, "version", before["python"])
    assert f"stale: another version of {name}: {before[name]}, now 0.0.1" in listed(bench)
    assert not bench.compile("qa", source).up_to_date


def test_another_version_makes_a_dataset_stale(bench, monkeypatch):
    source = bench.rows("train.jsonl", questions(3))
    bench.compile("qa", source)
    monkeypatch.setattr(identity, "release", lambda: "0.0.7")
    assert "stale: the compiler has changed" in listed(bench)
    assert not bench.compile("qa", source).up_to_date


HASH = "from tuneyard.compiler.engine.identity import own_hash; print(own_hash())"


@pytest.fixture(scope="module")
def checkout(tmp_path_factory) -> Path:
    """A copy of the packages that a compile imports."""
    root = tmp_path_factory.mktemp("checkout")
    for package in ("compiler", "core"):
        shutil.copytree(ROOT / package, root / package, ignore=shutil.ignore_patterns("__pycache__"))
    (root / "tuneyard").mkdir()
    (root / "tuneyard/__init__.py").touch()
    for package in ("compiler", "core"):
        (root / "tuneyard" / package).symlink_to(root / package)
    return root


def hash_in(checkout: Path) -> str:
    """The hash in a process of its own: each keeps its own."""
    environment = {**os.environ, "PYTHONPATH": str(checkout)}
    command = [sys.executable, "-c", HASH]
    done = subprocess.run(command, cwd=checkout, env=environment, capture_output=True, text=True, check=True)
    return done.stdout


@pytest.mark.parametrize(
    "file",
    [
        "core/records/calls.py",
        "core/files/__init__.py",
        "compiler/rows/__init__.py",
        "compiler/read/jsons.py",
    ],
)
def test_an_edit_of_any_code_that_a_compile_runs_changes_its_identity(checkout, file):
    before = hash_in(checkout)
    path = checkout / file
    text = path.read_text()
    path.write_text(f"{text}\n# an edit\n")
    assert hash_in(checkout) != before
    path.write_text(text)
    assert hash_in(checkout) == before


def test_the_hash_of_the_code_is_fast():
    identity.own_hash.cache_clear()
    began = time.process_time()
    identity.own_hash()
    assert time.process_time() - began < 0.2  # 0.03 s here
