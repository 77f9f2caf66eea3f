"""Answers that are all dates: an error in JSON Lines, for a check and for a compile, and none in an array."""

import json

import pytest
from datasets import Value

from tests.messages import raises
from tuneyard.compiler.compile import check_spec
from tuneyard.compiler.init.propose import propose
from tuneyard.compiler.request import CompileRequest
from tuneyard.compiler.spec.model import load_spec
from tuneyard.core.errors import ContentError
from tuneyard.core.timestamps import BATCH

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


KEPT = """about: a
columns: {q: [q], a: {names: [a], is: answer}, day: {names: [day], is: extra}}
write:
  - {dataset: s, file: s.ENDING, format: alpaca, instruction: "{q}", output: "{a}", keep: [day]}
"""


@pytest.mark.parametrize(("last", "stops"), [("soon", True), ("2024-01-01", False)])
def test_a_kept_column_of_dates_in_the_first_batch_alone_stops_the_loader(bench, tmp_path, last, stops):
    from datasets import disable_progress_bars, load_dataset
    from datasets.exceptions import DatasetGenerationError

    count = BATCH // 1000 + 10
    rows = [{"q": f"{n} {'x' * 1000}", "a": "yes", "day": "2023-05-02"} for n in range(count)]
    rows.append({"q": "the last", "a": "yes", "day": last})
    source = bench.rows("rows.jsonl", rows)
    lines, array = bench.write("s.yaml", KEPT.replace("ENDING", "jsonl")), KEPT.replace("ENDING", "json")
    report = bench.compile(lines, source)
    assert found(report) == ([("E430", "s.jsonl", "day")] if stops else [])
    if stops:
        assert "from line" in report.problems.errors[0].message
    disable_progress_bars()
    loader = {"split": "train", "cache_dir": str(tmp_path / "cache")}
    if stops:
        with pytest.raises(DatasetGenerationError):
            load_dataset("json", data_files=[str(source)], **loader)
    else:
        assert len(load_dataset("json", data_files=[str(source)], **loader)) == len(rows)
    if stops:
        assert not bench.compile(bench.write("s.yaml", array), source).failed


@pytest.mark.parametrize("name", ["date", "Modified", "created_at", "start_time", "timestamps", "2023-05-02"])
def test_a_text_field_whose_name_is_read_as_a_date_is_refused_in_an_array(bench, tmp_path, name):
    from datasets import disable_progress_bars, load_dataset

    spec = """about: a
columns: {t: [t]}
write:
  - {dataset: s, file: s.ENDING, format: text, field: "NAME", text: "{t}"}
""".replace("NAME", name)
    source = bench.rows("rows.jsonl", [{"t": "2023-05-02"}, {"t": "2023-05-03"}])
    with raises(ContentError, "write.0", "field"):
        bench.compile(bench.write("s.yaml", spec.replace("ENDING", "json")), source)
    disable_progress_bars()
    array = bench.write("loaded.json", json.dumps([{name: "2023-05-02"}, {name: "2023-05-03"}]))
    loaded = load_dataset("json", data_files=[str(array)], split="train", cache_dir=str(tmp_path / "c"))
    assert loaded.features.get(name) != Value("string")
    prose = bench.rows("prose.jsonl", [{"t": "a text"}])
    assert not bench.compile(bench.write("s.yaml", spec.replace("ENDING", "jsonl")), prose).failed
