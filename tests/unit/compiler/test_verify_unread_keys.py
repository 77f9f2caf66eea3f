"""Keys inside turns that LLaMA-Factory does not read: what each does to an answer, and its count."""

import json
from pathlib import Path

import pytest

from tests.unit.compiler.conftest import json_lines
from tuneyard.compiler.verify.expect import Expected, entry_problems
from tuneyard.core.records import format_of_entry

TAGS = {
    "role_tag": "role", "content_tag": "content", "user_tag": "user", "assistant_tag": "assistant",
    "observation_tag": "tool", "function_tag": "function_call", "system_tag": "system",
}  # fmt: skip
ENTRY = {"formatting": "sharegpt", "columns": {"messages": "messages"}, "tags": TAGS}
ASKED = {"role": "user", "content": "q"}
CALLS = [{"id": "1", "type": "function", "function": {"name": "f", "arguments": "{}"}}]


def answer(text: str = "a", **keys: object) -> dict:
    return {"role": "assistant", "content": text, **keys}


def read(bench, records: list[dict], entry: dict = ENTRY, **settings) -> Expected:
    expected = Expected(bench.write("s.jsonl", json_lines(records)), format_of_entry(entry), **settings)
    assert len(list(expected.records())) == len(records)
    return expected


def findings(bench, turns: list[dict], entry: dict = ENTRY, **settings) -> list[tuple[str, str]]:
    expected = read(bench, [{"messages": turns}], entry, **settings)
    return [(problem.code, problem.field) for problem, _ in expected.problems]


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("tool_calls", CALLS),
        ("function_call", {"name": "f", "arguments": "{}"}),
        ("reasoning_content", "because"),
        ("reasoningContent", "because"),
        ("thinking", "because"),
        ("cot", "because"),
        ("weight", 0),
        ("loss", False),
        ("train", "no"),
        ("loss_weight", 0.5),
        ("mask", True),
        ("is_correct", "false"),
        ("images", ["a.png"]),
        ("audio", "a.wav"),
        ("rejected", "b"),
        ("refusal", "I can not."),
    ],
)
def test_a_key_that_changes_an_answer_is_an_error(bench, key, value):
    assert findings(bench, [ASKED, answer(**{key: value})]) == [("E410", f"messages.{key}")]


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("tool_calls", []), ("tool_calls", None), ("reasoning_content", ""), ("thinking", "\n"),
        ("weight", 1), ("weight", None), ("loss", True), ("loss", 0.342), ("mask", 0), ("images", []),
        ("refusal", None),
        ("id", 7), ("name", "Ann"), ("timestamp", "2024-01-01"), ("model", "m"),
    ],
)  # fmt: skip
def test_a_neutral_value_is_none(bench, key, value):
    assert findings(bench, [ASKED, answer(**{key: value})]) == []


def test_a_mark_counts_where_an_answer_is_learned(bench):
    earlier = [ASKED, answer(weight=0), ASKED, answer()]
    assert findings(bench, earlier) == [("E410", "messages.weight")]
    assert findings(bench, earlier, mask_history=True) == []
    assert findings(bench, [{**ASKED, "weight": 0}, answer()]) == []
    kto = {**ENTRY, "columns": {"messages": "messages", "kto_tag": "good"}}
    records = [{"messages": earlier, "good": True}]
    assert read(bench, records, kto).problems == []


def test_both_answers_of_a_pair_are_looked_at(bench):
    columns = {"messages": "messages", "chosen": "yes", "rejected": "no"}
    entry = {**ENTRY, "ranking": True, "columns": columns}
    record = {"messages": [ASKED], "yes": answer(reasoning_content="r"), "no": answer("b", weight=0)}
    problems = read(bench, [record], entry).problems
    assert [(problem.code, problem.field) for problem, _ in problems] == [
        ("E410", "yes.reasoning_content"),
        ("E410", "no.weight"),
    ]


def test_records_are_counted_and_the_first_one_is_named(bench):
    plain = {"messages": [ASKED, answer(id="x")]}
    marked = {"messages": [ASKED, answer(weight=0), ASKED, answer(weight=0)]}
    expected = read(bench, [plain, plain, marked, plain, marked])
    ((problem, row),) = expected.problems
    assert (row, problem.place.rsplit("/", 1)[-1]) == (2, "s.jsonl:3")
    assert "turn 2" in problem.message
    assert "2 of 5 records" in problem.message
    assert expected.unread_keys.neutral == {"messages.id": 3}


def test_openai_reads_calls_and_loses_the_text_next_to_them(bench):
    openai = {**ENTRY, "formatting": "openai"}
    result = {"role": "tool", "content": "r", "tool_call_id": "1"}
    assert findings(bench, [ASKED, answer("", tool_calls=CALLS), result, answer()], openai) == []
    turns = [ASKED, answer("I look it up.", tool_calls=CALLS), result, answer()]
    assert findings(bench, turns, openai) == [("E410", "messages.content")]
    assert findings(bench, [{**ASKED, "tool_calls": CALLS}, answer()], openai) == [
        ("E410", "messages.tool_calls")
    ]


def test_no_set_with_calls_is_told_to_become_sharegpt(bench):
    openai = {**ENTRY, "formatting": "openai", "file_name": "s.jsonl"}
    hints = []
    for turn in (answer("", tool_calls=CALLS), answer()):
        expected = read(bench, [{"messages": [ASKED, turn]}], openai)
        (problem,) = entry_problems("p", openai, expected.format, has_calls=expected.unread_keys.has_calls)
        assert (problem.code, problem.field) == ("E401", "formatting")
        hints.append(problem.hint)
    assert "sharegpt" not in hints[0]
    assert "tuneyard data init" in hints[0]
    assert "use sharegpt" in hints[1]


@pytest.mark.parametrize("formatting", ["sharegpt", "openai"])
def test_llamafactorys_converters_read_what_we_take_for_read(formatting):
    """The oracle: what is in their rows, and what is not."""
    from llamafactory.data.converter import get_dataset_converter
    from llamafactory.data.parser import DatasetAttr

    turn = answer("TEXT", tool_calls=CALLS, reasoning_content="REASON", weight=0, images=["PICTURE"])
    attributes = DatasetAttr("file", dataset_name="s")
    attributes.join({**ENTRY, "formatting": formatting})
    row = get_dataset_converter(formatting, attributes, None)({"messages": [ASKED, turn]})
    text = json.dumps(row)
    assert not any(lost in text for lost in ("REASON", "weight", "PICTURE"))
    assert ("arguments" in text, "TEXT" in text) == (formatting == "openai", formatting == "sharegpt")


PAIR_ENTRY = {"columns": {"prompt": "q", "response": "a"}}
DPO = {"ranking": True, "columns": {"prompt": "q", "chosen": "a", "rejected": "b"}}
KTO = {"columns": {"prompt": "q", "response": "a", "kto_tag": "good"}}
ROW = {"q": "How many?", "a": "Two."}


@pytest.mark.parametrize(
    ("columns", "entry", "expected"),
    [
        ({"weight": 0}, PAIR_ENTRY, "E410"),
        ({"weight": 0.5}, DPO, "E410"),
        ({"loss": False}, PAIR_ENTRY, "E410"),
        ({"loss_mask": 0}, PAIR_ENTRY, "E410"),
        ({"train": "no"}, PAIR_ENTRY, "E410"),
        ({"is_correct": False}, PAIR_ENTRY, "E410"),
        ({"label": False}, PAIR_ENTRY, "E410"),
        ({"rejected": True}, PAIR_ENTRY, "E410"),
        ({"chosen": False}, PAIR_ENTRY, "E410"),
        ({"status": "discarded"}, PAIR_ENTRY, "E410"),
        ({"status": [{"status": "discarded"}]}, PAIR_ENTRY, "E410"),
        ({"rejected": "Three."}, PAIR_ENTRY, "W409"),
        ({"rejected_response": "Three."}, PAIR_ENTRY, "W409"),
        ({"reasoning": "I count."}, PAIR_ENTRY, "W409"),
        ({"思考过程": "数一数"}, PAIR_ENTRY, "W409"),
        ({"system_prompt": "Be brief."}, PAIR_ENTRY, "W409"),
        ({"image_path": "a.png"}, PAIR_ENTRY, "W409"),
        ({"weight": 1}, PAIR_ENTRY, ""),
        ({"weight": 70}, PAIR_ENTRY, ""),
        ({"loss": 0.342}, PAIR_ENTRY, ""),
        ({"label": 0}, PAIR_ENTRY, ""),
        ({"label": "negative"}, PAIR_ENTRY, ""),
        ({"rejected": None, "tools": []}, PAIR_ENTRY, ""),
        ({"rejected": False, "chosen": True}, PAIR_ENTRY, ""),
        ({"options": ["One.", "Two."]}, PAIR_ENTRY, ""),
        ({"reasoning": "Two"}, PAIR_ENTRY, ""),  # the answer has it
        ({"rejected_score": 0.1, "source": "web", "id": 0}, PAIR_ENTRY, ""),
        ({"b": "Three.", "winner": "model_a"}, DPO, ""),
        ({"good": False, "thumbs_up": False}, KTO, ""),
        ({"good": True, "rejected": "Three."}, KTO, ""),
    ],
)
def test_columns_that_the_entry_does_not_name(bench, columns, entry, expected):
    plain = {**ROW, "b": "Three.", "good": True}
    records = [plain, {**plain, **columns}, plain, {**plain, **columns}]
    problems = [problem for problem, _ in read(bench, records, entry).problems]
    assert [(problem.code, problem.field) for problem in problems] == (
        [(expected, next(iter(columns)))] if expected else []
    )
    for problem in problems:
        assert problem.place.endswith("s.jsonl:2")
        assert "2 of 4 records" in problem.message


def test_a_position_called_correct_is_no_mark(bench):
    """The whole file decides: 0 alone would say that the answer is incorrect."""
    records = [{**ROW, "correct": number} for number in (0, 1, 3)]
    assert read(bench, records, PAIR_ENTRY).problems == []
    assert [problem.code for problem, _ in read(bench, records[:2], PAIR_ENTRY).problems] == ["E410"]


def test_columns_of_conversations_are_looked_at(bench):
    record = {"messages": [ASKED, answer()], "weight": 0}
    assert [problem.code for problem, _ in read(bench, [record]).problems] == ["E410"]
    record = {
        "messages": [{"role": "system", "content": "Be brief."}, ASKED, answer()],
        "system_prompt": "Be brief.",
    }
    assert read(bench, [record]).problems == []


def test_many_keys_stay_bounded(tmp_path: Path, bench):
    records = [{"messages": [ASKED, answer(**{f"k{number}.weight": 0})]} for number in range(3000)]
    assert len(read(bench, records).problems) == 2000
