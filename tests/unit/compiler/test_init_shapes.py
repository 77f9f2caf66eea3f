"""init on small files in the shape of public datasets: right, refused with the reason, or with a warning."""

import json

import pytest
import yaml

from tests.messages import printed_line, raises
from tests.unit.compiler.conftest import as_csv, exchange
from tuneyard.compiler.init.command import propose
from tuneyard.compiler.spec.load import load_spec
from tuneyard.core.errors import ContentError

ROWS = 30
TOPICS = ("rivers", "copper", "windmills", "glaciers", "violins", "harbours", "lichens")


def story(n):
    return f"Report number {n} describes {TOPICS[n % 7]} in some detail."


def ask(n):
    return f"What does report {n} say about {TOPICS[n % 7]}?"


def reply(n):
    return f"It says that they were counted {n} times in the north."


def columns_of(bench, make_row):
    """Propose for 30 rows; return (target column: source column, warnings, the spec)."""
    rows = [make_row(n) for n in range(ROWS)]
    text, report, _ = propose(bench.rows("rows.jsonl", rows))
    spec = load_spec(str(bench.write("mine.yaml", text)))
    assert bench.compile(bench.folder / "mine.yaml").kept == ROWS
    top = rows[0].keys()
    columns = {}
    for column in spec.columns:
        names = [key for key in top if key.lower() in {each.lower() for each in column.names}]
        if names and column.type.name != "id":
            columns[column.name] = names[0]
    warnings = [line for line in report.splitlines() if line.startswith("warning: ")]
    return columns, warnings, yaml.safe_load(text)


def test_a_question_with_true_or_false_is_a_yes_no_question(bench):
    columns, warnings, spec = columns_of(
        bench, lambda n: {"question": ask(n), "answer": n % 2 == 0, "passage": story(n)}
    )
    assert columns == {"question": "question", "context": "passage", "label": "answer"}
    assert spec["labels"] == {"yes": [True], "no": [False]} and warnings == []


@pytest.mark.parametrize("options", [{}, {"text": "#1 String", "text2": "#2 String", "label": "Quality"}])
def test_two_numbered_texts_are_a_pair(bench, options):
    rows = [
        {"Quality": n % 2, "#1 ID": 1000 + n, "#1 String": story(n), "#2 String": story(n + 1)}
        for n in range(ROWS)
    ]
    text, report, _ = propose(bench.write("mrpc.tsv", as_csv(rows, delimiter="\t")), **options)
    spec = yaml.safe_load(text)
    assert spec["columns"]["premise"] == ["#1 String"] and spec["columns"]["hypothesis"] == ["#2 String"]
    assert spec["labels"] == {"yes": [1], "no": [0]}
    printed_line(report, "warning", "Quality", "1")


@pytest.mark.parametrize(
    ("question", "answer"),
    [("Question", "Answer"), ("ask", "answer"), ("input", "target"), ("inputs", "targets")],
)
def test_questions_and_answers_have_several_names(bench, question, answer):
    columns, _, spec = columns_of(bench, lambda n: {question: ask(n), answer: reply(n)})
    assert spec["like"] == "qa" and columns == {"question": question, "answer": answer}


def test_a_body_next_to_question_and_answer_is_the_input(bench):
    columns, warnings, _ = columns_of(
        bench,
        lambda n: {"Body": story(n), "Question": ask(n), "Answer": n / 2, "Type": ("sum", "product")[n % 2]},
    )
    assert columns == {"question": "Question", "context": "Body", "answer": "Answer"}
    assert any("Body is used as the input" in warning for warning in warnings)


@pytest.mark.parametrize(
    ("make_row", "like", "expected"),
    [
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
        (
            lambda n: {"task_id": n, "prompt": ask(n), "canonical_solution": reply(n)},
            "pr",
            {"prompt": "prompt", "response": "canonical_solution"},
        ),
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
        (
            lambda n: {
                "question": ask(n),
                "choices": {"text": [reply(n), story(n), ask(n)], "label": ["A", "B", "C"]},
                "answerKey": "ABC"[n % 3],
            },
            "choices",
            {"question": "question", "choices": "choices", "answer": "answerKey"},
        ),
        (
            lambda n: {
                "functions": [{"name": "look", "parameters": {"type": "object"}}],
                "messages": [
                    {"role": "user", "content": ask(n)},
                    {
                        "role": "assistant",
                        "content": None,
                        "function_call": {"name": "look", "arguments": "{}"},
                    },
                    {"role": "function", "name": "look", "content": str(n)},
                    {"role": "assistant", "content": reply(n)},
                ],
            },
            "messages",
            {"turns": "messages", "tools": "functions"},
        ),
        (
            lambda n: {
                "system": [{"text": "Be brief."}],
                "messages": exchange([{"text": ask(n)}], [{"text": reply(n)}]),
            },
            "messages",
            {"turns": "messages"},
        ),
    ],
)
def test_a_bundled_spec_with_what_differs(bench, make_row, like, expected):
    columns, _, spec = columns_of(bench, make_row)
    assert spec.get("like") == like
    assert {name: columns.get(name) for name in expected} == expected


@pytest.mark.parametrize(
    ("make_row", "warning"),
    [
        (lambda n: {"text": story(n), "label": n % 2}, "label holds numbers"),
        (
            lambda n: {"sentence1": story(n) * 2, "sentence2": ask(n), "label": n % 2},
            "GLUE numbers them so",
        ),
        (lambda n: {"sentence1": story(n), "sentence2": story(n + 1), "label": n % 2}, "mean the same"),
        (
            lambda n: {
                "premise": story(n),
                "choice1": ask(n),
                "choice2": reply(n),
                "label": n // 2 % 2,
                "question": ("cause", "effect")[n % 2],
            },
            "question has few values (cause, effect)",
        ),
        (
            lambda n: {
                "premise": story(n),
                "question": "cause",
                "choice1": ask(n),
                "choice2": reply(n),
                "label": 1,
            },
            "label: its numbers fit a count from 0 and from 1; taken as from 1",
        ),
        (lambda n: {"tweet": story(n), "label": "ab"[n % 2]}, "tweet is used as the text"),
        (
            lambda n: {"text": story(n), "code": f"def add(x): return x + {n}"},
            "code is used as the answer to text",
        ),
        (lambda n: {"problem": ask(n), "answer": str(n), "solution": reply(n)}, "not used: solution"),
        (lambda n: {"text": story(n), "toxicity": n / ROWS}, "not used: toxicity (fraction)"),
        (
            lambda n: {"prompt": ask(n), "response": reply(n), "helpfulness": n % 5},
            "not used: helpfulness (number)",
        ),
        (
            lambda n: {"text": story(n), "label": ("spam", "ham", "HAM ")[n % 3]},
            'label: "ham", "HAM " differ only in case or spaces, and are one label',
        ),
        (
            lambda n: {"text": story(n), "label": "spma" if n == 7 else ("spam", "ham")[n % 2]},
            'label: "spma" is the class of one row; is spam meant?',
        ),
        (
            lambda n: {"text": story(n), "toxic": "01"[n % 2], "threat": "0"},
            "toxic, threat mark classes with 0 and 1, and the model learns toxic alone",
        ),
        (
            lambda n: {
                "title": ask(n),
                "body": story(n),
                "state": ("open", "closed")[n % 2],
                "user": {"login": "ab"[n % 2]},
                "created_at": f"2024-01-0{n % 3 + 1}T09:00",
            },
            "state is used as the label",
        ),
        (
            lambda n: {"instruction": ask(n), "input": ("nan", "N/A", story(n))[n % 3], "output": reply(n)},
            'input has "nan", "N/A" (number of rows: 20), which the model reads as text',
        ),
    ],
)
def test_a_proposal_that_may_be_wrong_warns(bench, make_row, warning):
    assert any(warning in line for line in columns_of(bench, make_row)[1])


@pytest.mark.parametrize(
    "row",
    [
        {"goal": ask(1), "sol1": reply(1), "sol2": reply(2)},
        {"goal": ask(1), "sol1": reply(1), "sol2": reply(2), "label": 7},
        {"sentence1": story(1), "sentence2": story(2), "score": 2.5},
    ],
)
def test_a_shape_that_no_spec_holds_is_refused_with_the_reason(bench, row):
    with raises(ContentError, *row):
        propose(bench.rows("rows.jsonl", [row] * 3))


def test_the_first_of_accepted_answers_is_learned(bench):
    """SQuAD's `answers.text` is a list."""
    rows = [
        {"context": story(n), "question": ask(n), "answers": {"text": [reply(n)], "answer_start": [0]}}
        for n in range(ROWS)
    ]
    text, _, _ = propose(bench.rows("squad.jsonl", rows))
    assert bench.compile(text).kept == ROWS
    records = [record for record in bench.records("*.jsonl") if "output" in record]
    assert {record["output"] for record in records} <= {reply(n) for n in range(ROWS)} and records


WORDS = ("tin", "zinc", "iron", "lead")


def choices_by(names, n):
    return {name: f"{WORDS[(n + at) % 4]} {n}" for at, name in enumerate(names)}


@pytest.mark.parametrize(
    ("make_row", "letters"),
    [
        (
            lambda n: {
                "premise": story(n), "question": "cause", "label": n % 2,
                **choices_by(("choice1", "choice2"), n),
            },
            "AB",
        ),
        (lambda n: {"goal": ask(n), **choices_by(("sol1", "sol2"), n), "label": n % 2}, "AB"),
        (
            lambda n: {
                "sentence": story(n), **choices_by(("option1", "option2"), n), "answer": str(1 + n % 2)
            },
            "AB",
        ),
        (
            lambda n: {
                "context": story(n), "question": ask(n), "label": str(1 + n % 3),
                **choices_by(("answerA", "answerB", "answerC"), n),
            },
            "ABC",
        ),
        (
            lambda n: {"question": ask(n), **choices_by(("opa", "opb", "opc", "opd"), n), "cop": n % 4},
            "ABCD",
        ),
        (
            lambda n: {  # RACE as a table: the article is the input
                "article": story(n), "question": ask(n), "answer": "ABCD"[n % 4], **choices_by("ABCD", n),
            },
            "ABCD",
        ),
        (
            lambda n: {
                "题干": ask(n), **choices_by(("选项A", "选项B", "选项C", "选项D"), n), "答案": "ABcd"[n % 4],
            },
            "ABCD",
        ),
        (
            lambda n: {
                "题目": ask(n), **choices_by(("选项1", "选项2", "选项3"), n), "正确答案": str(1 + n % 3),
            },
            "ABC",
        ),
        (
            lambda n: {
                "question": ask(n), **choices_by(("option_a", "option_b", "option_c"), n),
                "answer": f"{WORDS[(n + n % 3) % 4]} {n}",
            },
            "ABC",
        ),
    ],
)  # fmt: skip
def test_choices_in_columns(bench, make_row, letters):
    """The prompt lists the choices, and the number or the text of the answer becomes its letter."""
    _, warnings, spec = columns_of(bench, make_row)
    assert spec["columns"]["answer"]["is"] == "choice"
    assert not any("fit a count from 0 and from 1" in warning for warning in warnings)
    records = bench.records("rows_train.jsonl") + bench.records("rows_test.jsonl")
    expected = {letters[n % len(letters)] for n in range(ROWS)}
    assert {record["output"] for record in records} == expected
    first = make_row(0)
    (record,) = [record for record in records if "tin 0" in record["instruction"]]
    assert record["output"] == letters[0]
    assert "\nA. tin 0\nB. zinc 0" in record["instruction"]
    assert str(first.get("premise", first.get("question", ""))) in record["instruction"]


def test_a_correct_choice_in_a_column_of_its_own_is_not_always_the_first(bench):
    """SciQ: the choices are sorted, so that their order does not tell the answer."""
    columns, _, spec = columns_of(bench, lambda n: {
            "question": ask(n), "support": story(n), "correct_answer": f"{WORDS[n % 4]} {n}",
            **{f"distractor{at}": f"{WORDS[(n + at) % 4]} {n}" for at in (1, 2, 3)},
        },
    )  # fmt: skip
    assert spec["columns"]["answer"]["sort"] is True and columns["context"] == "support"
    records = bench.records("rows_train.jsonl")
    assert {record["output"] for record in records} == set("ABCD")
    for record in records:
        (number,) = [word for word in record["input"].split() if word.isdigit()]
        letter = record["output"]
        assert f"\n{letter}. {WORDS[int(number) % 4]} {number}" in record["instruction"]


@pytest.mark.parametrize("names", [("input", "output"), ("human", "assistant")])
def test_exchanges_are_turns(bench, names):
    columns, warnings, spec = columns_of(
        bench,
        lambda n: {"conversation": [dict(zip(names, (ask(n), reply(n)), strict=True))] * (1 + n % 2)},
    )
    assert columns == {"turns": "conversation"} and spec["like"] == "messages" and warnings == []
    turns = [(turn["from"], turn["value"]) for turn in bench.first("rows_test.jsonl")["conversations"]]
    assert turns[:2] == [("human", turns[0][1]), ("gpt", turns[1][1])] and turns[1][1].startswith("It says")


@pytest.mark.parametrize("as_text", [True, False])
def test_calls_as_answers_are_turns_of_calls(bench, as_text):
    """APIGen's calls are JSON text. A call of a tool that the row lacks is an error."""

    def make_row(n, name="add"):
        answers = [{"name": name, "arguments": {"a": n}}]
        tools = [{"name": "add", "description": "adds", "parameters": {"a": {"type": "int"}}}]
        if as_text:
            return {"query": ask(n), "answers": json.dumps(answers), "tools": json.dumps(tools)}
        return {"query": ask(n), "answers": answers, "tools": tools}

    columns, warnings, _ = columns_of(bench, make_row)
    assert columns == {"turns": "query", "completion": "answers", "tools": "tools"} and warnings == []
    question, call = bench.first("rows_test.jsonl")["conversations"]
    assert (question["from"], call["from"]) == ("human", "function_call")
    assert json.loads(call["value"])["name"] == "add"
    report = bench.compile_rows(bench.folder / "mine.yaml", [make_row(n, "sub") for n in range(25)])
    assert {problem.code for problem in report.problems.errors} == {"E109"}


def test_codes_of_a_diagnosis_are_no_programs(bench):
    columns, _, _ = columns_of(bench, lambda n: {"text": story(n), "code": f"E{n}"})
    assert columns == {"text": "text"}


def test_a_list_of_choices_with_the_correct_one(bench):
    """HellaSwag has no question: the text that the choices end is the longest one."""
    endings = ["They stop.", "They sing.", "They sleep.", "They leave."]
    columns, warnings, spec = columns_of(
        bench, lambda n: {"ctx": story(n), "endings": endings, "label": str(n % 4)}
    )
    assert columns == {"question": "ctx", "choices": "endings", "answer": "label"}
    assert spec["like"] == "choices"
    assert any("ctx is used as the question" in line for line in warnings)
    assert set(bench.values("rows_train.jsonl", "output")) == {"A", "B", "C", "D"}
