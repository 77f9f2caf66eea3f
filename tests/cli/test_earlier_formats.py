"""Results of an earlier version, which wrote `set` for `dataset` and no format, and of a later one."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import click
import jsonschema
import pytest

from testing.tiny import write_adapter
from tests.cli.scoring import PAIRS, call
from tests.conftest import ROOT
from tests.json_files import read_json, write_json, write_lines
from tests.messages import raises
from tests.runs_cut import tree
from tuneyard.core.errors import ContentError
from tuneyard.eval.compare.__main__ import cli as compare
from tuneyard.eval.nli import cli as nli
from tuneyard.eval.qa.__main__ import cli as qa

pytestmark = pytest.mark.usefixtures("one_thread")
EARLIER = {
    "run.json": {"datasets": "sets"},
    "results.json": {"dataset": "set"},
    "table.json": {"datasets": "sets"},
}


def of_an_earlier_version(folder: Path) -> None:
    """Write all records below a folder as an earlier version did: the keys' old names, no format."""
    for name, names in EARLIER.items():
        for path in folder.rglob(name):
            fields = read_json(path)
            assert fields.pop("format") == 2
            fields.pop("inputs", None)  # which came with the format
            write_json(path, {names.get(key, key): value for key, value in fields.items()})


@pytest.fixture
def scored(score: Callable[..., Path], data: Path, tmp_path: Path) -> Path:
    """The base on the dataset "tiny"."""
    return score(nli, "--data", data, out="scored")


@pytest.fixture
def earlier(scored: Path, tmp_path: Path) -> Path:
    """The same run as an earlier version wrote it."""
    shutil.copytree(scored, tmp_path / "out")
    of_an_earlier_version(tmp_path / "out")
    return tmp_path / "out"


def test_resuming_it_ends_with_the_bytes_of_a_run_of_this_version(score, scored, earlier, data, tmp_path):
    write_lines(tmp_path / "other.jsonl", PAIRS[:3])
    adapter = write_adapter(tmp_path / "saved")
    words = ("--data", data, "--data", tmp_path / "other.jsonl", "--adapter", f"one={adapter}")
    (earlier / "base/tiny/results.json").unlink()  # it was killed before the end
    score(nli, *words, "--resume")
    unbroken = score(nli, *words, out="unbroken")
    shown = {name: text.replace(b"unbroken", b"out") for name, text in tree(unbroken).items()}
    assert tree(earlier) == shown and len(shown) == 9


def test_finished_results_are_lifted_when_a_run_goes_on(score, scored, earlier, data):
    score(nli, "--data", data, "--resume")
    expected = {name: text.replace(b"/scored", b"/out") for name, text in tree(scored).items()}
    assert tree(earlier) == expected


def test_it_is_scored_again(scored, earlier, data, tmp_path):
    for name, folder in (("a", scored), ("b", earlier)):
        call(nli, "--rescore", folder, "--data", data, "--count", "maybe=no", "--out", tmp_path / name)
    a, b = (read_json(tmp_path / name / "base/tiny/results.json") for name in "ab")
    for each in (a, b):
        del each["command"], each["rescored_from"]["path"]
    assert a == b and a["dataset"] == "tiny" and "set" not in a


def test_it_is_compared_and_its_comparison_replaced(scored, earlier, tmp_path):
    for name, folder in (("new", scored), ("old", earlier)):
        call(compare, f"m={folder}", "--out", tmp_path / name)
    new, old = (read_json(tmp_path / name / "table.json") for name in ("new", "old"))
    for name in ("runs", "inputs"):
        assert old.pop(name) != new.pop(name)
    assert new == old and list(new["datasets"]) == ["tiny"]
    of_an_earlier_version(tmp_path / "old")
    call(compare, f"m={earlier}", "--out", tmp_path / "old")
    assert read_json(tmp_path / "old/table.json")["format"] == 2


@pytest.mark.parametrize("what", ["resume", "rescore", "compare"])
@pytest.mark.parametrize("name", ["run.json", "base/tiny/results.json"])
def test_one_of_a_later_version_is_refused_and_stays(
    tiny_model, scored, data, tmp_path, what: str, name: str
) -> None:
    path = scored / name
    write_json(path, {**read_json(path), "format": 3, "tuneyard": {"version": "9.5.1"}})
    before = tree(scored)
    with raises(ContentError, Path(name).name, "format 3", '"9.5.1"', "format 2"):
        if what == "resume":
            call(nli, "--model", tiny_model, "--data", data, "--resume", "--out", scored)
        elif what == "rescore":
            call(nli, "--rescore", scored, "--data", data, "--out", tmp_path / "new")
        else:
            call(compare, scored, "--out", tmp_path / "table")
    assert tree(scored) == before and not (tmp_path / "new/base/tiny/results.json").exists()


def test_a_comparison_of_a_later_version_is_not_replaced(scored, tmp_path) -> None:
    (tmp_path / "table").mkdir()
    write_json(tmp_path / "table/table.json", {"format": 3, "plots": [], "runs": []})
    for force in ((), ("--force",)):
        with raises(ContentError, "table.json", "format 3"):
            call(compare, scored, "--out", tmp_path / "table", *force)


def test_each_file_of_a_run_has_its_schema(scored, tmp_path) -> None:
    call(compare, f"m={scored}", "--out", tmp_path / "table")
    files = {"run": scored / "run.json", "table": tmp_path / "table/table.json"}
    files |= dict.fromkeys(("results", "results-labels"), scored / "base/tiny/results.json")
    for name, path in files.items():
        jsonschema.validate(read_json(path), read_json(ROOT / f"core/schemas/{name}.json"))
        assert next(iter(read_json(path))) == "format"
    of_lines = read_json(ROOT / "core/schemas/predictions.json")
    for line in (scored / "base/tiny/predictions.jsonl").read_text().splitlines():
        jsonschema.validate(json.loads(line), of_lines)


@pytest.mark.parametrize("command", [nli, qa])
@pytest.mark.parametrize(
    "text", ['{"settings": [1]}', '{"models": 3}', "[]", '{"by": 1, "datasets": {}}', '{"a": ']
)
def test_a_run_json_of_another_form_is_one_message(tmp_path, data, command: click.Command, text) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out/run.json").write_text(text)
    with raises(ContentError, "out/run.json"):
        call(command, "--model", "m", "--data", data, "--resume", "--out", tmp_path / "out")
    assert (tmp_path / "out/run.json").read_text() == text
