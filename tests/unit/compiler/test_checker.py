"""Labels and answers that are numbers or truth values: mapped by the spec, or written as JSON has them."""

import datetime
import json

import pytest

from tests.unit.compiler.conftest import ROWS, Bench, as_csv, as_parquet, json_lines

SPEC = """
about: a test
columns: {q: [q], label: [a]}
labels: {"yes": YES, "no": NO, unlabelled: [-1]}
write: [{file: t.jsonl, format: alpaca, instruction: "{q}", output: "{label}"}]
"""
ANY = """
about: a test
columns: {q: [q], a: {names: [a], is: any}}
write: [{file: t.jsonl, format: alpaca, instruction: "{q}", output: "{a}!", keep: [a]}]
"""
TRUTHS = ("[true]", "[false]")
NUMBERS = ("[1, 0.5]", "[0, 2.0]")


def answers(bench: Bench, maps: tuple[str, str], values: list, layout: str) -> list[str]:
    """Return what is written for each raw answer, or the messages where some are refused."""
    spec = bench.write("t.yaml", SPEC.replace("YES", maps[0]).replace("NO", maps[1]))
    rows = [{"q": f"Question {number}", "a": value} for number, value in enumerate(values)]
    data = {
        "jsonl": json_lines(rows),
        "json": json.dumps(rows),
        "csv": as_csv(rows),
        "parquet": as_parquet(rows) if layout == "parquet" else b"",
    }[layout]
    report = bench.compile(spec, bench.write(f"t.{layout}", data), force=True)
    if report.failed:
        return [problem.message for problem in report.problems.errors]
    return bench.values("t.jsonl", "output")


@pytest.mark.parametrize("layout", ["jsonl", "json", "csv", "parquet"])
@pytest.mark.parametrize(
    ("maps", "values"),
    [(TRUTHS, [True, False]), (NUMBERS, [0.5, 2.0]), (NUMBERS, [1.0, 0.0]), (NUMBERS, [1, 0])],
)
def test_labels_that_are_no_text_are_mapped_in_every_layout(bench, maps, values, layout):
    assert answers(bench, maps, [*values, *values], layout) == ["yes", "no", "yes", "no"]


@pytest.mark.parametrize("cells", [["true", "false"], ["TRUE", "FALSE"]])
def test_truth_values_as_tables_write_them(bench, cells):
    assert answers(bench, TRUTHS, cells, "csv") == ["yes", "no"]


def test_a_truth_value_is_no_number_and_a_number_no_truth_value(bench):
    for maps, value, shown in ((NUMBERS, True, "true"), (TRUTHS, 1, "1"), (TRUTHS, 1.0, "1.0")):
        expected = ", ".join("true, false, -1" if maps is TRUTHS else "1, 0.5, 0, 2.0, -1" for _ in "x")
        assert answers(bench, maps, [value], "jsonl") == [f"found {shown}, expected one of {expected}"]
    both = ('[true, "1"]', "[false, 1]")
    assert answers(bench, both, [True, 1, "1", False, 1.0], "jsonl") == ["yes", "no", "yes", "no", "no"]


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (True, "true"),
        (None, "null"),
        (1.5, "1.5"),
        (1.0, "1.0"),
        (-7, "-7"),
        (["x", "é\n"], '["x","é\\n"]'),
        ({"a": [1, None]}, '{"a":[1,null]}'),
        ('a "text"', 'a "text"'),
        ("", ""),
    ],
)
def test_any_value_stands_in_a_text_as_json_has_it(bench, value, text):
    spec = bench.write("t.yaml", ANY)
    bench.compile_rows(spec, [{"q": "b", "a": value}])
    assert bench.records("t.jsonl") == [{"instruction": "b", "input": "", "output": f"{text}!", "a": value}]


def test_a_date_in_a_text_has_no_quotes_and_is_kept_as_json_has_it(bench):
    day = datetime.date(2020, 1, 2)
    bench.compile(ANY, bench.write("t.parquet", as_parquet([{"q": "b", "a": day}])))
    record = bench.first("t.jsonl")
    assert (record["output"], record["a"]) == ("2020-01-02!", "2020-01-02")


@pytest.mark.parametrize(
    ("scores", "best"),
    [([1, 3, 2], "text 1"), ([2, 2.0, 1], "text 0"), ([-1, -0.5], "text 1"), ([0], "text 0")],
)
def test_the_best_of_several_answers_and_of_equals_the_first(bench, scores, best):
    answers = [{"pm_score": score, "text": f"text {number}"} for number, score in enumerate(scores)]
    bench.compile_rows("stackexchange", [{"question": "q", "answers": answers}])
    assert bench.first("stackexchange.jsonl")["output"] == best


def test_a_name_inside_of_another_is_found_where_any_row_has_it(bench):
    spec = "like: qa\ncolumns: {question: [asked.text], answer: [answer]}\n"
    rows = bench.rows("rows.jsonl", [{"answer": "1"}, {"asked": {"text": "a"}, "answer": "2"}])
    report = bench.compile(spec, rows)
    assert bench.codes(report) == [("E102", "rows.jsonl:1")]


def test_an_input_may_ask_alone(bench):
    """As LLaMA-Factory reads alpaca: an empty instruction leaves its input as the question."""
    asked = ("", "a"), ("a", ""), ("", ""), (" ", "a")
    rows = [{"instruction": one, "input": two, "output": "b"} for one, two in asked]
    report = bench.compile("io", bench.rows("a.jsonl", rows), reject=True)
    assert bench.codes(report) == [("E106", "a.jsonl:3"), ("E106", "a.jsonl:4")]
    assert [(r["instruction"], r["input"]) for r in bench.records("io.json")] == [("", "a"), ("a", "")]
    other = "about: x\nlike: io\nwrite:\n  - {dataset: own, instruction: 'Do: {instruction}'}\n"
    report = bench.compile_rows(other, rows[:2], reject=True)
    assert bench.codes(report) == [("E106", "train.jsonl:1")]


def test_one_point_nought_is_one_and_a_name_nearly_right_is_asked_about(bench):
    rows = [ROWS[0] | {"label": 1.0}, ROWS[1] | {"label": "entailmnet"}]
    report = bench.compile_rows("rte", rows, reject=True)
    assert report.problems.errors[0].hint == 'did you mean "entailment"?'
    assert bench.first("alpaca_rte-train.json")["output"] == "no"


@pytest.mark.parametrize("kind", ["any", "extra"])
def test_a_refused_row_does_not_decide_the_type_of_a_kept_column(bench, kind):
    sources = [bench.rows("a.jsonl", [{"q": "", "a": 7}]), bench.rows("b.jsonl", [{"q": "b", "a": "x"}])]
    assert bench.compile(ANY.replace("any", kind), *sources, reject=True).kept == 1
