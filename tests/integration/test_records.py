"""The reader of records makes of every kind of dataset what LLaMA-Factory's own converter makes of it."""

import json
from pathlib import Path

import pytest
from PIL import Image

from tests.json_files import write_lines
from tests.messages import raises
from tuneyard.compiler.engine.request import CompileRequest
from tuneyard.compiler.publish.compile import compile_dataset
from tuneyard.compiler.spec.load import load_spec
from tuneyard.core.datasets import find_dataset, read_records, read_registry
from tuneyard.core.errors import ContentError
from tuneyard.core.records import PLACEHOLDERS, RecordReader, format_of_entry

pytestmark = pytest.mark.slow  # importing LLaMA-Factory takes 10 s

ASK = {"role": "user", "content": "2+2?"}
REPLY = {"role": "assistant", "content": "4"}
TOOL = {"name": "add", "parameters": {"type": "object", "properties": {"a": {"type": "integer"}}}}
CALL = {"id": "1", "type": "function", "function": {"name": "add", "arguments": '{"a": 2}'}}
CALLED = [
    ASK,
    {"role": "assistant", "content": None, "tool_calls": [CALL]},
    {"role": "tool", "tool_call_id": "1", "content": "4"},
    REPLY,
]
SOURCES = {
    "io": [{"question": "2+2?", "answer": "4"}],
    "alpaca": [
        {"instruction": "Add", "input": "2+2", "output": "4", "system": "S", "history": [["a", "b"]]},
        {"instruction": "Add", "input": "", "output": "", "system": None, "history": []},
    ],
    "text": [{"text": "Plain text."}],
    "messages": [
        {"messages": [{"role": "system", "content": "S"}, ASK, REPLY]},
        {"messages": CALLED, "tools": [TOOL]},
    ],
    "pairs": [{"prompt": "2+2?", "chosen": "4", "rejected": "5"}],
    "pairs-chat": [{"prompt": [ASK], "chosen": "4", "rejected": "5"}],
    "kto": [{"messages": [ASK, REPLY], "label": True}, {"messages": [ASK, REPLY], "label": False}],
    "media": [{"messages": [{"role": "user", "content": "<image>What?"}, REPLY], "images": ["a.png"]}],
}
"""Rows by the bundled spec that reads them: one at least for each kind of records."""
OPENAI_TAGS = {
    "role_tag": "role", "content_tag": "content", "user_tag": "user", "assistant_tag": "assistant",
    "observation_tag": "tool", "function_tag": "function", "system_tag": "system",
}  # fmt: skip
OPENAI = {
    "formatting": "openai",
    "columns": {"messages": "messages", "tools": "tools", "system": "system"},
    "tags": OPENAI_TAGS,
}
SHAREGPT = {"formatting": "sharegpt"}
HAND_WRITTEN = [
    ({}, {"instruction": "I", "input": None, "output": None}),
    ({"columns": {"prompt": "q"}}, {"q": "Text", "a": "left out"}),
    (OPENAI, {"messages": CALLED, "tools": [TOOL], "system": None}),
    (OPENAI, {"messages": CALLED[:3], "tools": None, "system": "S"}),
    (OPENAI, {"messages": [ASK, REPLY], "tools": "", "system": "detailed thinking on"}),
    (OPENAI, {"messages": [ASK, REPLY], "tools": "", "system": ""}),
    (OPENAI, {"messages": [ASK, CALLED[1], *[CALLED[2]] * 2, REPLY], "tools": [TOOL], "system": "S"}),
    (SHAREGPT, {"conversations": []}),
    (SHAREGPT, {"conversations": [{"from": "human", "value": "a"}]}),
    (SHAREGPT, {"conversations": [{"from": "gpt", "value": "a"}, {"from": "human", "value": "b"}]}),
]
"""Entries that no compile writes, with a record each. LLaMA-Factory drops some of them."""


def llamafactorys_row(record: dict[str, object], entry: dict[str, object]) -> dict[str, object]:
    from llamafactory.data.converter import get_dataset_converter
    from llamafactory.data.parser import DatasetAttr
    from llamafactory.hparams import DataArguments

    attributes = DatasetAttr("file", "x")
    attributes.join(entry)
    converter = get_dataset_converter(attributes.formatting, attributes, DataArguments(media_dir="nowhere"))
    return converter(json.loads(json.dumps(record)))


def assert_same(record: dict[str, object], entry: dict[str, object]) -> None:
    row = llamafactorys_row(record, entry)
    example = RecordReader(format_of_entry(entry)).read(record)
    loaded = [(message["role"], message["content"]) for message in row["_prompt"] + row["_response"]]
    is_text = format_of_entry(entry).text_only
    is_trained = len(row["_prompt"]) % 2 == 1 and (is_text or len(row["_response"]) > 0)
    assert bool(example.fault) == (not is_trained)
    if not is_trained:
        return
    assert [(message.role, message.text) for message in example.trained_messages] == loaded
    assert example.system == (row["_system"] or "")
    assert example.tools == (row["_tools"] or "")
    for kind in PLACEHOLDERS:
        assert example.media.get(kind, []) == (row[f"_{kind}"] or [])


@pytest.mark.parametrize("name", SOURCES)
def test_a_compiled_dataset_of_each_kind(name: str, tmp_path: Path) -> None:
    source = tmp_path / "rows.jsonl"
    write_lines(source, SOURCES[name])
    Image.new("RGB", (8, 8)).save(tmp_path / "a.png")
    out = tmp_path / "out"
    report = compile_dataset(CompileRequest(load_spec(name), sources=(str(source),), out=out))
    assert not report.problems.errors
    datasets = read_registry(out)
    assert datasets
    for dataset in datasets:
        found = find_dataset(dataset, out)
        records = read_records(found.path)
        assert len(records) == len(SOURCES[name])
        for record in records:
            assert_same(record, found.entry)


@pytest.mark.parametrize(("entry", "record"), HAND_WRITTEN)
def test_an_entry_written_by_hand(entry: dict[str, object], record: dict[str, object]) -> None:
    assert_same(record, entry)


def test_a_record_at_which_llamafactory_stops_is_an_error_with_its_column() -> None:
    record = {"conversations": [{"from": "human", "value": "a"}, {"from": "judge", "value": "b"}]}
    with raises(ContentError, "judge", "turn 2", "conversations"):
        RecordReader(format_of_entry(SHAREGPT)).read(record)
