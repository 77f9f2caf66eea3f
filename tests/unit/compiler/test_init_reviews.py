"""What people decided about rows: discarded responses, responses over suggestions, choices of an answer.

Besides: answers that are objects, and prompts that a proposal would leave out.
"""

import json

import pytest

from tests.messages import raises
from tests.unit.compiler.conftest import Bench, error_codes, questions
from tuneyard.compiler.init.command import FailingSpecError, propose

CLASSES = ("pos", "neg")


def reviews(extra) -> list[dict]:
    """Texts of 40 reviews, each with what `extra` makes of its number."""
    return [{"text": f"I watched film number {n} and felt so.", **extra(n)} for n in range(40)]


@pytest.mark.parametrize(
    "mark",
    [
        {"status": ["discarded"]},
        {"status": "discarded"},
        {"responses": [{"status": "discarded", "values": {}}]},
        {"answer.responses.status": ["discarded", "submitted"]},
        {"review": {"status": ["DISCARDED"]}},
    ],
)
def test_discarded_rows_are_refused(bench: Bench, mark: dict) -> None:
    """Argilla writes the status of each response, in a list."""
    rows = questions(4)
    rows[2] |= mark
    if "review" in mark:
        assert bench.compile("qa", bench.rows("rows.jsonl", rows)).kept == 4  # an object of any meaning
        return
    report = bench.compile("qa", bench.rows("rows.jsonl", rows))
    assert bench.codes(report) == [("E108", "rows.jsonl:3")]


@pytest.mark.parametrize(
    "status", [["submitted"], ["submitted", "discarded"], [], "open", [None], {"status": "done"}]
)
def test_other_statuses_say_nothing(bench: Bench, status: object) -> None:
    rows = questions(4)
    rows[2]["status"] = status
    assert bench.compile("qa", bench.rows("rows.jsonl", rows)).kept == 4


ARGILLA = {
    "flat": lambda n: {
        "label.suggestion": CLASSES[n % 2],
        "label.suggestion.score": 0.9,
        "label.responses": [CLASSES[(n + 1) % 2]],
        "label.responses.status": ["submitted"],
    },
    "nested": lambda n: {
        "suggestions": {"label": {"value": CLASSES[n % 2]}},
        "responses": {"label": [{"value": CLASSES[(n + 1) % 2], "user_id": "u"}]},
    },
    "one question": lambda n: {
        "sentiment.suggestion": CLASSES[n % 2],
        "sentiment.responses": [CLASSES[(n + 1) % 2]],
    },
}


@pytest.mark.parametrize("form", ARGILLA)
def test_responses_of_people_go_before_suggestions(bench: Bench, form: str) -> None:
    """The suggestion of a model was learned."""
    spec, _, _ = propose(bench.rows("rows.jsonl", reviews(ARGILLA[form])), 0)
    bench.compile(spec)
    assert bench.values("rows.jsonl", "output")[:4] == ["neg", "pos", "neg", "pos"]


def test_suggestions_alone_are_labels_as_before(bench: Bench) -> None:
    rows = reviews(lambda n: {"label.suggestion": CLASSES[n % 2]})
    bench.compile(propose(bench.rows("rows.jsonl", rows), 0)[0])
    assert bench.values("rows.jsonl", "output")[:2] == ["pos", "neg"]


def pairwise(n: int) -> dict:
    side = ("left", "right")[n % 2]
    result = {
        "type": "pairwise",
        "from_name": "pw",
        "to_name": "answer1,answer2",
        "value": {"selected": side},
    }
    data = {"prompt": f"How is {n} done?", "answer1": f"First way of {n}.", "answer2": f"Second way of {n}."}
    return {
        "full": {"id": n, "data": data, "annotations": [{"was_cancelled": False, "result": [result]}]},
        "column": {"id": n, **data, "selected": side},
        "control": {"id": n, **data, "better one": {"selected": side}},
        "responses": {
            "prompt": data["prompt"],
            "response1": data["answer1"],
            "response2": data["answer2"],
            "selected": side.title(),
        },
    }


@pytest.mark.parametrize("form", ["full", "column", "control", "responses"])
def test_a_pairwise_choice_of_label_studio_is_a_pair(bench: Bench, form: str) -> None:
    """The second answer was the text, left and right were its classes, and the prompt was left out."""
    source = bench.write("tasks.json", json.dumps([pairwise(n)[form] for n in range(6)]))
    bench.compile(propose(source, 0)[0])
    records = bench.records("tasks.jsonl")
    assert [record["instruction"] for record in records[:2]] == ["How is 0 done?", "How is 1 done?"]
    assert [record["chosen"] for record in records[:2]] == ["First way of 0.", "Second way of 1."]
    assert [record["rejected"] for record in records[:2]] == ["Second way of 0.", "First way of 1."]


def test_a_choice_of_neither_side_is_a_bad_row(bench: Bench) -> None:
    rows = [pairwise(n)["column"] for n in range(6)]
    rows[3]["selected"] = "middle"
    source = bench.write("tasks.json", json.dumps(rows))
    report = bench.compile("like: pairs\nsource: {form: preference}\n", source)
    assert error_codes(report) == ["E111"]


OBJECTS = [
    {"kpi": {"a": None, "b": 57}, "unit": "EUR"},
    {"kpi": {"a": 1, "b": None}},
    {"entities": [{"name": "Ann", "type": "person"}], "count": 1},
    {"kpi": {"a": "high", "b": "low"}, "year": 2024},
    {"total": 3},
]


@pytest.mark.parametrize("answer", OBJECTS)
@pytest.mark.parametrize(
    "columns", [("instruction", "output"), ("question", "answer"), ("prompt", "response")]
)
def test_an_answer_that_is_an_object_is_learned_whole(
    bench: Bench, columns: tuple[str, str], answer: dict
) -> None:
    """One value of it was learned, such as "null" and "1", or the file was refused."""
    question, name = columns
    rows = [{question: f"What is in report {n}?", name: answer} for n in range(12)]
    spec, report, _ = propose(bench.rows("rows.jsonl", rows), 0)
    assert f"{name} is an object" in report
    bench.compile(spec)
    assert [json.loads(output) for output in bench.values("rows.jsonl", "output")] == [answer] * 12


def test_a_text_in_an_envelope_is_the_answer_as_before(bench: Bench) -> None:
    """SQuAD's `answers`: the text, and where it begins."""
    answer = {"text": ["Ann"], "answer_start": [3]}
    rows = [{"question": f"Who is in report {n}?", "answers": answer} for n in range(12)]
    bench.compile(propose(bench.rows("rows.jsonl", rows), 0)[0])
    assert bench.values("rows.jsonl", "output") == ["Ann"] * 12


@pytest.mark.parametrize(
    ("answer", "part"),
    [({"content": "Ann.", "model": "m-1"}, "content"), ({"answer": "Ann.", "score": 1}, "answer")],
)
def test_a_user_may_name_a_part_of_an_object(bench: Bench, answer: dict, part: str) -> None:
    rows = [{"question": f"Who is in report {n}?", "output": answer} for n in range(12)]
    spec, _, _ = propose(bench.rows("rows.jsonl", rows), 0, answer=f"output.{part}")
    bench.compile(spec)
    assert bench.values("rows.jsonl", "output") == ["Ann."] * 12


@pytest.mark.parametrize("name", ["prompt", "question", "Prompt", "问题", "meta.question"])
def test_a_proposal_without_the_prompt_is_refused(bench: Bench, name: str) -> None:
    rows = reviews(lambda n: {"sentiment": CLASSES[n % 2]})
    for number, row in enumerate(rows):
        text = f"Think of {number}"
        row |= {"meta": {"question": text}} if "." in name else {name: text}
    with raises(FailingSpecError, name, "--text"):
        propose(bench.rows("rows.jsonl", rows))


def test_a_prompt_that_a_conversation_repeats_is_no_loss(bench: Bench) -> None:
    """UltraChat has the first message in a column of its own."""
    rows = []
    for number in range(12):
        question = f'What is "{number}"?\n'
        turns = [{"role": "user", "content": question}, {"role": "assistant", "content": "A number."}]
        rows.append({"prompt": question.strip(), "messages": turns})
    spec, _, _ = propose(bench.rows("rows.jsonl", rows), 0)
    assert bench.compile(spec).kept == 12
