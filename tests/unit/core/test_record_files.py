"""Records as TypedDicts: their schemas, their format numbers, and what a file of another form is."""

import json
from pathlib import Path
from typing import Annotated, Any, Literal, Required, TypedDict

import jsonschema
import jsonschema_rs
import pytest

from tests.conftest import ROOT, Run
from tests.json_files import read_json, write_json
from tests.messages import raises
from tuneyard.core.errors import ContentError
from tuneyard.core.records.json_schema import Count, Limits, Share, json_schema
from tuneyard.core.records.prediction_record import Prediction
from tuneyard.core.records.record import (
    format_of,
    line_checker,
    read_record,
    record,
    record_formats,
    renamed_keys,
)
from tuneyard.core.records.results_record import ResultsRecord
from tuneyard.core.records.run_record import RunRecord


class Part(TypedDict, total=False):
    """A part of it.

    More about it.
    """

    share: Required[Share | None]
    others: list["Part"]


class Whole(TypedDict):
    """A record with a key of each kind."""

    kind: Literal["a", "b"]
    counts: Annotated[dict[str, Count], "by name", Limits(1, None)]
    limits: Annotated[list[float], Limits(2, 2)]
    parts: dict[str, Part]
    text: str | int
    anything: object


PART = {
    "description": "A part of it.",
    "type": "object",
    "properties": {
        "share": {"type": ["number", "null"], "minimum": 0, "maximum": 1},
        "others": {"type": "array", "items": {"$ref": "#/$defs/part"}},
    },
    "required": ["share"],
}
WHOLE = {
    "$schema": "https://json-schema.org/draft/2020-12/schema",
    "title": "a record",
    "type": "object",
    "properties": {
        "kind": {"enum": ["a", "b"]},
        "counts": {
            "type": "object",
            "additionalProperties": {"type": "integer", "minimum": 0, "maximum": 9007199254740992},
            "description": "by name",
            "minProperties": 1,
        },
        "limits": {"type": "array", "items": {"type": "number"}, "minItems": 2, "maxItems": 2},
        "parts": {"type": "object", "additionalProperties": {"$ref": "#/$defs/part"}},
        "text": {"type": ["string", "integer"]},
        "anything": {},
    },
    "required": ["kind", "counts", "limits", "parts", "text", "anything"],
    "$defs": {"part": PART},
}


def test_the_schema_of_a_type_is_that_written_by_hand() -> None:
    assert json_schema(Whole, "a record") == WHOLE
    closed = json_schema(Whole, "a record", closed=True)
    assert closed["additionalProperties"] is closed["$defs"]["part"]["additionalProperties"] is False


@pytest.mark.parametrize("hint", [tuple[int, int], bytes, set[str]])
def test_a_type_that_json_lacks_is_no_key_of_a_record(hint: Any) -> None:
    with pytest.raises(TypeError):
        json_schema(TypedDict("Bad", {"key": hint}), "a record")  # type: ignore[operator]  # made here


def test_the_schemas_are_those_of_the_records(run: Run) -> None:
    """`python -m tools.record_schemas` writes them."""
    run("-m", "tools.record_schemas", "--check")
    for name in ("run", "results", "results-labels", "predictions", "table", "points", "sweep"):
        jsonschema.Draft202012Validator.check_schema(read_json(ROOT / f"core/schemas/{name}.json"))


@record("years.json", "years", lifts=[renamed_keys({"set": "dataset"}), renamed_keys({"n": "rows"})])
class Years(TypedDict, total=False):
    """A record in its third format."""

    format: Required[Literal[3]]
    dataset: Required[str]
    rows: Count


@pytest.mark.parametrize(
    "older",
    [
        {"set": "a", "n": 4},
        {"format": 1, "set": "a", "n": 4},
        {"format": 2, "dataset": "a", "n": 4},
        {"dataset": "a", "rows": 4, "format": 3},
    ],
)
def test_earlier_formats_are_lifted_one_by_one(tmp_path: Path, older: dict[str, object]) -> None:
    write_json(tmp_path / "years.json", older)
    lifted = read_record(tmp_path / "years.json", Years)
    assert list(lifted.items()) == [("format", 3), ("dataset", "a"), ("rows", 4)]


@pytest.mark.parametrize(
    ("content", "facts"),
    [
        ({"format": 3, "set": "a"}, "years.json; dataset"),  # a name of the first format in the third one
        ({"format": 4, "tuneyard": {"version": "7.1"}}, 'format 4; "7.1"; format 3; newer'),
        ({"format": 4, "tuneyard": ["7.1"]}, "format 4; another version; newer"),
        ({"format": 10**300}, "years.json; format 3; newer"),
        ({"format": 0}, "format; 0"),
        ({"format": -1}, "format; -1"),
        ({"format": "3"}, 'format; "3"'),
        ({"format": True}, "format; true"),
        ({"format": 3.0}, "format; 3.0"),
        ({"format": None}, "format; null"),
        ({"set": "a", "dataset": "b"}, "`set`; `dataset`"),
        ({"set": ["a"]}, 'dataset; ["a"]'),
        ({"set": "a", "n": -1}, "rows; -1"),
        ({"set": "a", "n": 2**53 + 1}, "rows; 9007199254740993"),
        ({"set": "a", "n": "\ud800"}, "rows"),
    ],
)
def test_a_file_of_another_form_is_refused_at_its_place(
    tmp_path: Path, content: dict[str, object], facts: str
) -> None:
    (tmp_path / "years.json").write_text(json.dumps(content))
    with raises(ContentError, facts):
        read_record(tmp_path / "years.json", Years)


@pytest.mark.parametrize("record_type", [ResultsRecord, RunRecord])
def test_deep_nesting_is_read_or_refused(tmp_path: Path, record_type: type) -> None:
    path = tmp_path / "deep.json"
    path.write_text('{"settings": ' + '{"a": ' * 900 + "1" + "}" * 900 + ', "set": "s", "model": "m"}')
    assert read_record(path, record_type)["format"] == 2
    path.write_text('{"settings": ' + "[" * 100_000 + "]" * 100_000 + "}")
    with raises(ContentError, "deep.json"):
        read_record(path, record_type)


def test_a_record_needs_a_lift_from_each_earlier_format() -> None:
    with pytest.raises(TypeError):
        record("years.json", "years")(Years)


@pytest.mark.parametrize(
    ("line", "facts"),
    [
        ({}, "row"),
        ({"row": True}, "row; true"),
        ({"row": -1}, "row; -1"),
        ({"row": 0, "predicted_output": 3}, "predicted_output; 3"),
        ({"row": 0, "cluster": None}, "cluster; null"),
        ({"row": 0, "expected_output": ["yes"]}, "expected_output"),
        ({"row": 0, "tokens": 1.5}, "tokens; 1.5"),
        ({"row": 0, "type": "\ud800", "idx": "\ud800", "refused": 1}, "refused; 1"),
    ],
)
def test_a_line_of_another_form_is_refused_at_its_place(line: dict[str, object], facts: str) -> None:
    with raises(ContentError, f"p.jsonl:7; {facts}"):
        line_checker(Prediction)(line, "p.jsonl:7")


def test_lines_may_have_fields_of_a_command() -> None:
    line = {"row": 3, "similarity": 0.5, "idx": "a", "cluster": 8, "choices": None}
    line_checker(Prediction)(line, "p.jsonl:1")


def test_both_validators_agree_on_each_schema() -> None:
    """One checks fast, the other one explains: a value that one refuses is an error of the other."""
    for record_format in record_formats():
        for value in ({}, {"format": record_format.number}, {"format": 1, "n": -1, "model": 3, "row": "x"}):
            expected = jsonschema.Draft202012Validator(record_format.schema).is_valid(value)
            assert jsonschema_rs.validator_for(record_format.schema).is_valid(value) == expected
            assert format_of(record_format.type).is_valid(value) == expected
