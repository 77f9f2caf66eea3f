"""init on small files in the shape of public datasets: right, refused with the reason, or with a warning."""

import pytest
import yaml

from tests.messages import printed_line, raises
from tests.unit.compiler.conftest import as_csv
from tuneyard.compiler.init.propose import propose
from tuneyard.compiler.spec.model import load_spec
from tuneyard.core.errors import ContentError

ROWS = 30
TOPICS = ("rivers", "copper", "windmills", "glaciers", "violins", "harbours", "lichens")


def story(n):
    return f"Report number {n} describes {TOPICS[n % 7]} in some detail."


def ask(n):
    return f"What does report {n} say about {TOPICS[n % 7]}?"


def reply(n):
    return f"It says that they were counted {n} times in the north."


def columns_of(bench, name, make_row):
    """Propose for 30 rows; return (target column: source column, warnings, the spec)."""
    rows = [make_row(n) for n in range(ROWS)]
    if name.endswith(".tsv"):
        source = bench.write(name, as_csv(rows, delimiter="\t"))
    else:
        source = bench.rows(name, rows)
    text, report = propose(source)
    spec = load_spec(str(bench.write("mine.yaml", text)))
    assert bench.compile(str(bench.folder / "mine.yaml")).kept == ROWS
    top = rows[0].keys()
    columns = {}
    for column in spec.columns:
        names = [key for key in top if key.lower() in {each.lower() for each in column.names}]
        if names and column.kind != "id":
            columns[column.name] = names[0]
    warnings = [line for line in report.splitlines() if line.startswith("warning: ")]
    return columns, warnings, yaml.safe_load(text)


def test_a_question_with_true_or_false_is_a_yes_no_question(bench):
    columns, warnings, spec = columns_of(
        bench, "boolq.jsonl", lambda n: {"question": ask(n), "answer": n % 2 == 0, "passage": story(n)}
    )
    assert columns == {"question": "question", "context": "passage", "label": "answer"}
    assert spec["labels"] == {"yes": [True], "no": [False]} and warnings == []


@pytest.mark.parametrize("options", [{}, {"text": "#1 String", "text2": "#2 String", "label": "Quality"}])
def test_two_numbered_texts_are_a_pair(bench, options):
    rows = [
        {"Quality": n % 2, "#1 ID": 1000 + n, "#1 String": story(n), "#2 String": story(n + 1)}
        for n in range(ROWS)
    ]
    text, report = propose(bench.write("mrpc.tsv", as_csv(rows, delimiter="\t")), **options)
    spec = yaml.safe_load(text)
    assert spec["columns"]["premise"] == ["#1 String"] and spec["columns"]["hypothesis"] == ["#2 String"]
    assert spec["labels"] == {"yes": [1], "no": [0]}
    printed_line(report, "warning", "Quality", "1")


def test_a_body_next_to_question_and_answer_is_the_input(bench):
    columns, warnings, _ = columns_of(
        bench,
        "svamp.jsonl",
        lambda n: {"Body": story(n), "Question": ask(n), "Answer": n / 2, "Type": ("sum", "product")[n % 2]},
    )
    assert columns == {"question": "Question", "context": "Body", "answer": "Answer"}
    assert any("Body is used as the input" in warning for warning in warnings)


@pytest.mark.parametrize(
    ("make_row", "like", "expected"),
    [
        (
            lambda n: {"Question": ask(n), "Answer": reply(n)},
            "qa",
            {"question": "Question", "answer": "Answer"},
        ),
        (
            lambda n: {"instruction": ask(n), "context": story(n), "response": reply(n)},
            "io",
            {"instruction": "instruction", "input": "context", "output": "response"},
        ),
        (
            lambda n: {"system_prompt": "Be brief." * (n % 2), "question": ask(n), "response": reply(n)},
            "qa",
            {"system": "system_prompt", "question": "question", "answer": "response"},
        ),
        (lambda n: {"ask": ask(n), "answer": reply(n)}, "qa", {"question": "ask", "answer": "answer"}),
        (lambda n: {"input": ask(n), "target": reply(n)}, "io", {"instruction": "input", "output": "target"}),
        (
            lambda n: {
                "article": story(n),
                "question": ask(n),
                "options": [reply(n), story(n)],
                "answer": "A",
            },
            "choices",
            {"passage": "article", "question": "question", "choices": "options", "answer": "answer"},
        ),
    ],
    ids=["headers in capitals", "dolly", "openorca", "ask", "firefly", "race"],
)
def test_a_bundled_spec_with_what_differs(bench, make_row, like, expected):
    columns, _, spec = columns_of(bench, "rows.jsonl", make_row)
    assert spec["like"] == like
    assert {name: columns.get(name) for name in expected} == expected


@pytest.mark.parametrize(
    ("make_row", "warning"),
    [
        (lambda n: {"text": story(n), "label": n % 2}, "label holds numbers"),
        (lambda n: {"sentence1": story(n), "sentence2": ask(n), "label": n % 2}, "GLUE numbers them so"),
        (lambda n: {"tweet": story(n), "label": "ab"[n % 2]}, "tweet is used as the text"),
        (lambda n: {"text": story(n), "code": f"def add(x): return x + {n}"}, "not used: code"),
        (lambda n: {"problem": ask(n), "answer": str(n), "solution": reply(n)}, "not used: solution"),
    ],
    ids=["imdb", "paws", "tweets", "mbpp", "openr1"],
)
def test_a_proposal_that_may_be_wrong_warns(bench, make_row, warning):
    assert any(warning in line for line in columns_of(bench, "rows.jsonl", make_row)[1])


@pytest.mark.parametrize(
    ("row", "facts"),
    [
        ({"goal": ask(1), "sol1": reply(1), "sol2": reply(2)}, ""),
        ({"sentence1": story(1), "sentence2": story(2), "score": 2.5}, ""),
    ],
    ids=["piqa", "stsb"],
)
def test_a_shape_that_no_spec_holds_is_refused_with_the_reason(bench, row, facts):
    with raises(ContentError, *facts.split("; ")):
        propose(bench.rows("rows.jsonl", [row] * 3))


@pytest.mark.parametrize("end", ["", ",", ", "])
def test_a_list_that_is_cut_off_after_a_record_is_reported_as_cut_off(bench, end):
    source = bench.write(
        "cut.json", f'[{{"question": "a", "answer": "b"}}, {{"question": "c", "answer": "d"}}{end}'
    )
    with raises(ContentError, "E003"):
        propose(source)


@pytest.mark.parametrize(
    ("make_row", "expected"),
    [
        (
            lambda n: {"inputs": ask(n), "targets": reply(n), "language": "en"},  # xP3
            {"question": "inputs", "answer": "targets"},
        ),
        (
            lambda n: {"task_id": n, "prompt": ask(n), "canonical_solution": reply(n)},  # HumanEval
            {"prompt": "prompt", "response": "canonical_solution"},
        ),
    ],
)
def test_questions_and_answers_by_further_names(bench, make_row, expected):
    columns, _, _ = columns_of(bench, "named.jsonl", make_row)
    assert {name: columns[name] for name in expected} == expected


def test_the_first_of_accepted_answers_is_learned(bench):
    """SQuAD's `answers.text` is a list."""
    rows = [
        {"context": story(n), "question": ask(n), "answers": {"text": [reply(n)], "answer_start": [0]}}
        for n in range(ROWS)
    ]
    text, _ = propose(bench.rows("squad.jsonl", rows))
    assert bench.compile(bench.write("mine.yaml", text)).kept == ROWS
    records = [record for record in bench.records("*.jsonl") if "output" in record]
    assert {record["output"] for record in records} <= {reply(n) for n in range(ROWS)} and records


def test_ratings_next_to_an_answer_are_reported_as_unused(bench):
    rows = [{"prompt": ask(n), "response": reply(n), "helpfulness": n % 5} for n in range(ROWS)]
    _, report = propose(bench.rows("helpsteer.jsonl", rows))
    assert "warning: not used: helpfulness (number)" in report


@pytest.mark.parametrize(
    ("row", "facts"),
    [
        ({"conversation": [{"input": "a?", "output": "b"}] * 2}, ""),
        (
            {"query": "1+2?", "answers": '[{"name": "add", "arguments": {"a": 1}}]', "tools": "[{}]"},
            "JSON",
        ),
    ],
)
def test_rows_that_are_no_examples_are_refused_with_the_file_to_write(bench, row, facts):
    with raises(ContentError, *facts.split("; ")) as error:
        propose(bench.rows("rows.jsonl", [row] * ROWS))
    assert "Spec messages compiles that file" in str(error.value)


def test_a_list_of_choices_with_the_correct_one(bench):
    """HellaSwag has no question: the text that the choices end is the longest one."""
    endings = ["They stop.", "They sing.", "They sleep.", "They leave."]
    columns, warnings, spec = columns_of(
        bench, "hellaswag.jsonl", lambda n: {"ctx": story(n), "endings": endings, "label": str(n % 4)}
    )
    assert columns == {"question": "ctx", "choices": "endings", "answer": "label"}
    assert spec["like"] == "choices"
    assert any("ctx is used as the question" in line for line in warnings)
    records = bench.records("hellaswag_*.jsonl")
    answers = {record["output"] for record in records}
    assert answers == {"A", "B", "C", "D"}
