"""Datasets that are not there, have changed, or do not fit the way they are read."""

import hashlib
import json
from pathlib import Path

import pytest

from recipes.data import read_parts
from recipes.recipe import Recipe

GOOD = [{"instruction": "a", "input": "", "output": "b"}]


def register(folder: Path, rows: list[dict], entry: dict | None = None) -> Path:
    path = folder / "set" / "set.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(rows))
    (folder / "dataset_info.json").write_text(
        json.dumps({"set": {"file_name": "set/set.json", **(entry or {})}})
    )
    return path


def look(folder: Path, **settings):
    recipe = Recipe(
        Path("r.yaml"), {"dataset_dir": str(folder), "dataset": "set", **settings}, {"dataset": 3}
    )
    parts, problems = read_parts(recipe)
    return parts, [problem.code for problem in problems], [problem.message for problem in problems]


def test_good(tmp_path):
    register(tmp_path, GOOD * 3)
    parts, codes, _ = look(tmp_path, eval_dataset="set")
    assert codes == []
    assert [(part.key, part.rows) for part in parts] == [("dataset", 3), ("eval_dataset", 3)]


def test_not_registered_and_no_registry(tmp_path):
    assert look(tmp_path)[1] == ["E320"]
    register(tmp_path, GOOD)
    parts, codes, messages = look(tmp_path, dataset="set,sett")
    assert (len(parts), codes) == (1, ["E320"])
    assert 'did you mean "set"?' in messages[0]


def test_empty(tmp_path):
    register(tmp_path, [])
    assert look(tmp_path)[1] == ["E321"]


def test_changed_since_it_was_compiled(tmp_path):
    path = register(tmp_path, GOOD)
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    (path.parent / "manifest.json").write_text(json.dumps({"files": {"set.json": {"sha256": digest}}}))
    assert look(tmp_path)[1] == []
    path.write_text(json.dumps(GOOD * 2))
    assert look(tmp_path)[1] == ["W322"]


@pytest.mark.parametrize(
    ("row", "entry", "stage", "message"),
    [
        ({"instruction": "a", "output": 1}, None, "sft", 'record 2: column "output" (response) holds 1'),
        ({"question": "a", "output": "b"}, None, "sft", 'record 2: no column "instruction" (prompt)'),
        ({"q": "a", "a": "b"}, {"columns": {"prompt": "q"}}, "sft", "names no response"),
        (
            {"conversations": "a"},
            {"formatting": "sharegpt"},
            "sft",
            'column "conversations" (messages) holds "a"',
        ),
        ({"text": None}, {"columns": {"prompt": "text"}}, "pt", 'column "text" (prompt) holds null'),
    ],
)
def test_rows_that_would_be_lost(tmp_path, row, entry, stage, message):
    good = {"instruction": "a", "output": "b", "q": "a", "a": "b", "text": "c", "conversations": []}
    register(tmp_path, [good, row], entry)
    _, codes, messages = look(tmp_path, stage=stage)
    assert codes == ["E323"]
    assert message in messages[0]


def test_texts_and_conversations_that_fit(tmp_path):
    register(tmp_path, [{"text": "a"}], {"columns": {"prompt": "text"}})
    assert look(tmp_path, stage="pt")[1] == []
    register(tmp_path, [{"conversations": [{"from": "human", "value": "a"}]}], {"formatting": "sharegpt"})
    assert look(tmp_path)[1] == []
