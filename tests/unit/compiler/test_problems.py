"""A bad example is a file in tests/examples/bad, named by its code."""

import functools
from pathlib import Path

import pytest

from tests.conftest import ROOT
from tests.json_files import read_lines
from tuneyard.compiler.engine.request import CompileRequest
from tuneyard.compiler.publish.compile import check_dataset
from tuneyard.compiler.rows.problems import NAMES, NO_LIMIT, PLACES, Problems, some_of
from tuneyard.compiler.spec.load import load_spec
from tuneyard.core.cli.explain import problem_codes
from tuneyard.core.errors import Problem

BAD = ROOT / "tests/examples/bad"
EXAMPLES = sorted(BAD.iterdir())


@functools.cache
def messages(example: Path) -> str:
    """Return what a check of an example says, one problem a line, with places below the folder."""
    name = spec_of(example)
    if load_spec(name).near:
        pytest.importorskip("rensa")
    report = check_dataset(CompileRequest(load_spec(name), sources=tuple(sources(example, name))))
    found = [*report.problems.errors, *report.problems.warnings]
    return "".join(problem.line().replace(f"{BAD}/", "") + "\n" for problem in found)


def spec_of(example: Path) -> str:
    spec = example / "spec.yaml"
    return str(spec) if spec.is_file() else example.name.split(".")[1]


def sources(example: Path, name: str) -> list[str]:
    if example.is_dir():
        files = [path for path in sorted(example.iterdir()) if path.name != "spec.yaml"]
        return [f"{path.stem}={path}" for path in files]
    return [f"{load_spec(name).input_names[0]}={example}"]


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: path.name)
def test_bad_example_gives_its_code(example):
    text = messages(example)
    assert example.name[:4] in {line.split(": ")[1].split(" ")[0] for line in text.splitlines()}


def test_every_code_has_an_example():
    codes = {code for code in problem_codes() if code[1] in "012"}
    assert {path.name[:4] for path in EXAMPLES} == codes


WHOLE_FILES = {"E003", "E004", "E007", "E009", "E011", "E012", "E013", "E014", "E015", "E101", "E108", "E112"}


@pytest.mark.parametrize("example", [p for p in EXAMPLES if p.name[0] == "E"], ids=lambda path: path.name)
def test_a_compile_that_rejects_rows_ends_only_where_a_file_cannot_be_read_on(bench, example):
    name = spec_of(example)
    report = bench.compile(name, *sources(example, name), reject=True)
    whole = WHOLE_FILES & set(report.problems.counts) or "csv: E001: " in messages(example)
    assert report.failed == bool(whole)
    assert (bench.out / load_spec(name).name / "rejected.jsonl").exists() != report.failed


def test_the_first_places_of_each_warning_are_shown_or_every_one():
    for limit, shown in ((20, PLACES), (NO_LIMIT, PLACES + 2)):
        problems = Problems(limit=limit)
        for row in range(PLACES + 2):
            problems.warn(Problem("W204", f"a.jsonl:{row}", "empty"))
        lines = problems.warning_lines()
        assert [line for line in lines if line.startswith("a.jsonl:")] == lines[:shown]
        assert len(lines) == shown + (limit == 20)


def test_as_many_names_as_a_message_holds_stay_in_their_order():
    names = tuple(f"column {n}" for n in range(NAMES))
    assert some_of(names, "column 7") == ", ".join(f'"{name}"' for name in names)
    more = some_of((*names, "column 10"), "column 7")
    assert more.startswith('"column 7", ') and more.endswith(", … and 1 more")


def test_a_bad_row_that_orjson_cannot_write_is_put_aside_all_the_same(tmp_path):
    problems = Problems(NO_LIMIT, tmp_path / "aside.jsonl")
    problems.bad_row([Problem("E105", "a.jsonl:1", "found a half")], {"text": "\ud800"})
    problems.bad_row([Problem("E105", "a.jsonl:2", "found a large one")], {"number": 10**30})
    problems.end_batch()
    lines = read_lines(tmp_path / "aside.jsonl")
    assert [line["place"] for line in lines] == ["a.jsonl:1", "a.jsonl:2"]
    assert str(10**30) in lines[1]["row"]


def test_so_many_warnings_are_kept_as_the_limit_says():
    problems = Problems(3, None)
    for number in range(5):
        problems.warn(Problem("W210", f"a:{number + 1}", "text"))
    assert len(problems.warnings) == 3 and problems.counts["W210"] == 5
