"""Answers that are all dates: an error in JSON Lines, for a check and for a compile, and none in an array."""

import pytest

from compiler.init.propose import propose
from compiler.pipeline import check_spec
from compiler.request import CompileRequest
from compiler.spec import load_spec

SPEC = """about: a
columns: {{q: [q], a: {{names: [a], is: answer}}}}
{more}
write:
  - dataset: "s_{{split}}"
    file: "s-{{split}}.{ending}"
    format: alpaca
    instruction: "{{q}}"
    output: "{{a}}"
"""
DATES = [{"q": f"When was {n}?", "a": f"2023-05-{n:02}"} for n in range(1, 29)]


def spec(bench, ending="jsonl", more=""):
    return bench.write("s.yaml", SPEC.format(ending=ending, more=more))


def found(report):
    return [(problem.code, problem.place, problem.field) for problem in report.problems.errors]


@pytest.mark.parametrize("more", ["", "split: {test: 0.25}", "sample: 20"])
def test_a_check_and_a_compile_find_answers_that_are_all_dates(bench, more):
    source, path = bench.rows("rows.jsonl", DATES), str(spec(bench, more=more))
    checked = check_spec(load_spec(path), CompileRequest(sources=(str(source),)))
    compiled = bench.compile(path, source)
    assert ("E430", "s-train.jsonl", "output") in found(checked)
    assert found(compiled)[0] == ("E430", "s-train.jsonl", "output")
    assert compiled.failed and not (bench.out / "s").exists()
    assert "s-train.json" in compiled.problems.errors[0].hint
    assert not bench.compile(spec(bench, "json", more), source).failed


def test_one_text_among_dates_is_enough(bench):
    rows = [*DATES[:9], {"q": "When?", "a": "soon"}]
    assert not bench.compile(spec(bench), bench.rows("rows.jsonl", rows)).failed
    later = [{"q": "When?", "a": "soon"}, *DATES]
    assert not bench.compile(spec(bench), bench.rows("rows.jsonl", later), force=True).failed


def test_a_split_of_its_own_that_is_all_dates_is_found(bench):
    rows = [{"q": "When?", "a": "soon"}]
    train, test = bench.rows("train.jsonl", rows), bench.rows("test.jsonl", DATES)
    path = spec(bench, more="source: {splits: {train: train, test: test}}")
    assert found(bench.compile(path, train, test)) == [("E430", "s-test.jsonl", "output")]


@pytest.mark.parametrize("name", ["qa", "io", "alpaca", "pr", "reports"])
def test_bundled_specs_of_any_text_write_arrays(name):
    assert [output.file for output in load_spec(name).outputs] == [f"{name}.json"]


def test_init_proposes_an_array_for_dates(bench):
    rows = [{"question": row["q"], "answer": row["a"]} for row in DATES]
    text, _ = propose(bench.rows("dates.jsonl", rows))
    assert "file: dates_{split}.json\n" in text.replace('"', "")
    text, _ = propose(bench.rows("texts.jsonl", [row | {"answer": "soon"} for row in rows]))
    assert "texts_{split}.jsonl" in text
