"""`data init` with one odd row among many: the proposal is that of the other rows."""

import pytest

from tests.unit.compiler.conftest import Bench, exchange, spoken
from tuneyard.compiler.init.command import propose

COUNT = 30


def with_odd(rows: list[dict], place: int, odd: dict) -> list[dict]:
    """The rows with a changed copy of one: keys with the value `...` are left out."""
    changed = {key: value for key, value in {**rows[place], **odd}.items() if value is not ...}
    return [*rows[:place], changed, *rows[place + 1 :]]


def exchanges() -> list[dict]:
    return [
        {"conversation": [{"input": f"q {n}", "output": f"a {n}"}, {"input": "and?", "output": f"b {n}"}]}
        for n in range(COUNT)
    ]


@pytest.mark.parametrize("place", [0, COUNT // 2, COUNT - 1])
@pytest.mark.parametrize(
    "odd",
    [
        None,
        [],
        "oops",
        ...,
        [{"input": "q", "output": None}],
        [{"input": "q"}],
        [{"input": "q", "output": {}}],
    ],
    ids=str,
)
def test_exchanges(bench: Bench, place: int, odd: object) -> None:
    rows = with_odd([{**row, "source": "x"} for row in exchanges()], place, {"conversation": odd})
    text, _, _ = propose(bench.rows("talks.jsonl", rows), 0)
    report = bench.compile(text, reject=True)
    assert (report.kept, report.rejected) == (COUNT - 1, 1)
    first = 1 if place == 0 else 0
    assert spoken(bench.first("talks.jsonl")) == [
        ("user", f"q {first}"), ("assistant", f"a {first}"), ("user", "and?"), ("assistant", f"b {first}")
    ]  # fmt: skip


@pytest.mark.parametrize("place", [0, COUNT - 1])
@pytest.mark.parametrize("prompt", [None, exchange("q", "a"), []], ids=["null", "with an answer", "empty"])
def test_turns_next_to_their_completion(bench: Bench, place: int, prompt: object) -> None:
    rows = []
    for number in range(COUNT):
        question, answer = exchange(f"q {number}", f"a {number}")
        rows.append({"prompt": [question], "completion": [answer]})
    text, _, _ = propose(bench.rows("talks.jsonl", with_odd(rows, place, {"prompt": prompt})), 0)
    report = bench.compile(text, reject=True)
    assert (report.kept, report.rejected) == (COUNT - 1, 1)


@pytest.mark.parametrize("odd", [None, "", "maybe", 2, ...], ids=str)
def test_marks_next_to_turns(bench: Bench, odd: object) -> None:
    rows = [{"messages": exchange(f"q {n}", f"a {n}"), "label": n % 2 == 0} for n in range(COUNT)]
    text, _, _ = propose(bench.rows("talks.jsonl", with_odd(rows, 0, {"label": odd})), 0)
    assert "like: kto" in text
    report = bench.compile(text, reject=True)
    assert (report.kept, report.rejected) == (COUNT - 1, 1)


def messages() -> list[dict]:
    """A table as OASST has it: a question and its answer, 30 times."""
    rows = []
    for number in range(COUNT):
        question, answer = f"m{number}q", f"m{number}a"
        tree = {"message_tree_id": question, "lang": "en"}
        text = f"the question {number}"
        rows.append({"message_id": question, "parent_id": None, "text": text, "role": "prompter", **tree})
        text = f"the answer {number}"
        rows.append({"message_id": answer, "parent_id": question, "text": text, "role": "assistant", **tree})
    return rows


@pytest.mark.parametrize("place", [1, 31, 59])
@pytest.mark.parametrize(
    ("odd", "kept"),
    [
        ({"message_id": None}, COUNT),
        ({"message_id": ...}, COUNT),
        ({"parent_id": ...}, COUNT - 1),
        ({"parent_id": "gone"}, COUNT - 1),
        ({"message_tree_id": None}, COUNT),
    ],
    ids=str,
)
def test_a_message_without_an_id(bench: Bench, place: int, odd: dict, kept: int) -> None:
    """A last answer without an id hid all threads: `null` was the parent of each first message."""
    text, _, _ = propose(bench.rows("threads.jsonl", with_odd(messages(), place, odd)), 0)
    assert "turns: {id: message_id, parent: parent_id, role: role, text: text}" in text
    assert bench.compile(text, reject=True).kept == kept


def test_first_messages_with_one_id_are_two_conversations(bench: Bench) -> None:
    """The second took the place of the first in silence."""
    rows = with_odd(messages(), 2, {"message_id": "m0q"})
    text, _, _ = propose(bench.rows("threads.jsonl", rows), 0)
    report = bench.compile(text, reject=True)
    assert report.kept + report.rejected == COUNT + 1


@pytest.mark.parametrize("number", [True, False])
@pytest.mark.parametrize("odd", [None, ...], ids=str)
@pytest.mark.parametrize("place", [0, 99])
def test_one_row_without_an_id_leaves_the_group(bench: Bench, place: int, odd: object, number: bool) -> None:
    rows = [
        {"doc_id": n // 4 if number else f"d{n // 4}", "question": f"q {n}?", "answer": f"a {n}."}
        for n in range(100)
    ]
    text, _, _ = propose(bench.rows("faq.jsonl", with_odd(rows, place, {"doc_id": odd})))
    has_group = not number or odd is None  # a column of numbers is needed in each row
    assert ("group: group" in text and "names: [doc_id]" in text) == has_group
    report = bench.compile(text)
    assert report.read == 100 and sum(report.datasets.values()) == 100


def test_many_rows_without_an_id_are_no_group(bench: Bench) -> None:
    rows = [{"doc_id": f"d{n // 4}", "question": f"q {n}?", "answer": f"a {n}."} for n in range(100)]
    for row in rows[::5]:
        row["doc_id"] = ""
    assert "group" not in propose(bench.rows("faq.jsonl", rows))[0]
