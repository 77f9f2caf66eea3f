"""Questions with choices: the answer by number, letter or text becomes the letter."""

import json

import pytest

from tests.messages import raises
from tests.unit.compiler.conftest import as_parquet
from tuneyard.core.errors import ContentError

CHOICES = ["six", "eight", "ten"]
LABELLED = {"text": CHOICES, "label": ["1", "2", "3"]}


def compiled(bench, rows, spec="choices"):
    bench.compile(spec, f"train={bench.rows('rows.jsonl', rows)}")
    return bench.values("choices.json", "output")


def problems(bench, row, spec="choices"):
    report = bench.compile(spec, f"train={bench.rows('rows.jsonl', [row])}")
    return [(problem.code, problem.message) for problem in report.problems.errors]


@pytest.mark.parametrize(
    ("choices", "answer", "letter"),
    [
        (CHOICES, 0, "A"),
        (CHOICES, 2, "C"),
        (CHOICES, "1", "B"),
        (CHOICES, "B", "B"),
        (CHOICES, "ten", "C"),
        (LABELLED, "2", "2"),
        (LABELLED, "eight", "2"),
        ([{"label": "X", "text": "six"}, {"label": "Y", "text": "ten"}], "Y", "Y"),
        ({"A": "six", "B": "ten"}, "B", "B"),
        (["10", "12"], "12", "B"),
        (["4", "2", "3"], 2, "C"),
    ],
)
def test_an_answer_becomes_the_letter_of_its_choice(bench, choices, answer, letter):
    assert compiled(bench, [{"question": "How many?", "choices": choices, "answer": answer}]) == [letter]


@pytest.mark.parametrize(
    ("choices", "answer", "part"),
    [
        (CHOICES, 3, "from 0 to 2 (`first: 1`"),
        (CHOICES, -1, "from 0 to 2"),
        (CHOICES, "D", "expected A, B, C, a number"),
        (CHOICES, "²", "expected A, B, C, a number"),
        (["4", "2", "3"], "2", "the number of one choice and the text of another"),
        (["one"], 0, "two or more choices"),
        (["one", ""], 0, "text that is not blank"),
        ({"text": CHOICES, "label": ["A", "B"]}, "A", "one label for each"),
    ],
)
def test_an_answer_that_names_no_choice_is_refused(bench, choices, answer, part):
    ((code, message),) = problems(bench, {"question": "How many?", "choices": choices, "answer": answer})
    assert code == "E107"
    assert part in message


def test_numbers_may_count_from_one_and_a_note_says_from_where(bench):
    spec = bench.write("choices.yaml", "like: choices\ncolumns: {answer: {first: 1}}\n")
    rows = [{"question": f"How many {n}?", "choices": CHOICES, "answer": n} for n in (1, 3)]
    assert compiled(bench, rows, spec) == ["A", "C"]
    report = bench.compile("choices", f"train={bench.rows('zero.jsonl', rows[:1])}")
    assert any("of which 0 is the first choice" in note for note in report.problems.notes)


COLUMNS = """about: choices in columns
columns: {q: [q], a: [x], b: [y], answer: {names: [n], is: choice, of: [a, %s]}}
write: [{dataset: c, file: choices.json, format: alpaca, instruction: "{q} {a} {b}", output: "{answer}"}]
"""


def test_choices_in_columns_need_a_column_each(bench):
    row = {"q": "How many?", "x": "six", "y": "six", "n": 0}
    with raises(ContentError, "of: [a, b]"):
        problems(bench, row, bench.write("s.yaml", COLUMNS.replace(", of: [a, %s]", "")))
    with raises(ContentError, "`of` names 'c'"):
        problems(bench, row, bench.write("s.yaml", COLUMNS % "c"))
    spec = bench.write("s.yaml", COLUMNS % "b")
    assert compiled(bench, [row], spec) == ["A"]
    ((code, message),) = problems(bench, row | {"n": "six"}, spec)
    assert code == "E107" and "2 choices are" in message


def test_a_letter_needs_choices_and_choices_need_no_letter(bench):
    row = {"question": "q", "choices": CHOICES, "answer": "ten"}
    with raises(ContentError, "column answer", "is: choices"):
        problems(bench, row, bench.write("s.yaml", "like: choices\ncolumns: {choices: {is: list}}\n"))
    spec = bench.write("s.yaml", "like: choices\ncolumns: {answer: {is: answer}}\n")
    assert compiled(bench, [row], spec) == ["ten"]


def test_a_table_has_the_same_choices(bench):
    rows = [{"question": "How many?", "choices": CHOICES, "answer": 1}]
    bench.compile("choices", f"train={bench.write('rows.parquet', as_parquet(rows))}")
    (record,) = bench.records("choices.json")
    assert record["instruction"] == "How many?\nA. six\nB. eight\nC. ten"
    assert json.dumps(record["output"]) == '"B"'
