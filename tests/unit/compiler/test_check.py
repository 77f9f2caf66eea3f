"""`data check` finds what a compile finds, and writes nothing."""

import contextlib
import resource
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import ROOT
from tests.unit.compiler.conftest import questions
from tests.unit.compiler.test_specs import sources
from tuneyard.compiler.engine.request import CompileReport, CompileRequest
from tuneyard.compiler.publish.compile import check_dataset, compile_dataset
from tuneyard.compiler.publish.report import report_as_json
from tuneyard.compiler.spec.file import known_specs
from tuneyard.compiler.spec.load import load_spec

BAD = ROOT / "tests/examples/bad"
GOOD = [name for name in known_specs() if not name.startswith("demo_")]
BY_SPLIT = """write:
  - {dataset: "s_{split}", file: "s-{split}.jsonl", format: alpaca, instruction: "{question}",
     output: "{answer}"}
"""
TWO_PASSES = {
    "split": f"split: {{eval: 0.2, test: 0.1}}\n{BY_SPLIT}",
    "split and whole": f"split: {{eval: 0.2}}\n{BY_SPLIT}"
    '  - {file: whole.jsonl, format: alpaca, instruction: "{question}", output: "{answer}"}\n',
    "sample": "sample: 0.5\n",
    "duplicates": "drop_duplicates: true\n",
    "leaks": f"split: {{eval: 0.2}}\ndrop_leaks: true\n{BY_SPLIT}",
}


@contextlib.contextmanager
def without_writing(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Fail if the block writes a byte into a file, or looks for a temporary folder."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    with monkeypatch.context() as patched:
        patched.setattr(tempfile, "tempdir", "/no/such/folder")
        resource.setrlimit(resource.RLIMIT_FSIZE, (0, before[1]))
        try:
            yield
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)


def findings(report: CompileReport) -> dict[str, object]:
    """What check and compile have in common: everything but files and times."""
    content = report_as_json(report)
    for key in ("datasets", "seconds", "up_to_date"):
        del content[key]
    return content


@pytest.mark.parametrize("name", GOOD)
def test_a_check_of_an_example_has_the_counts_of_its_compile_and_writes_nothing(name, tmp_path, monkeypatch):
    spec = load_spec(name)
    request = CompileRequest(spec, sources=sources(spec), out=tmp_path / "out")
    with without_writing(monkeypatch):
        checked = check_dataset(request)
    assert list(tmp_path.iterdir()) == []
    assert findings(checked) == findings(compile_dataset(request))


@pytest.mark.parametrize("path", sorted(BAD.iterdir()), ids=lambda path: path.name)
def test_a_check_of_a_bad_example_has_the_problems_of_its_compile(path, tmp_path, monkeypatch):
    words = path.name.split(".")
    if len(words) < 3 or words[1] not in GOOD:
        pytest.skip("its name has no spec")
    spec = load_spec(words[1])
    part = "train=" if spec.mix or not spec.split else ""
    request = CompileRequest(spec, sources=(f"{part}{path}",), out=tmp_path / "out")
    with without_writing(monkeypatch):
        checked = check_dataset(request)
    assert checked.problems.counts
    assert findings(checked) == findings(compile_dataset(request))


@pytest.mark.parametrize("text", TWO_PASSES.values(), ids=TWO_PASSES)
@pytest.mark.parametrize("workers", [1, 2])
def test_a_check_that_draws_rows_writes_none(text, workers, bench, tmp_path, monkeypatch):
    rows = [*questions(30), *questions(3)]
    files = [bench.rows("a.jsonl", rows), bench.rows("b.jsonl", [*questions(40), {"question": "no answer"}])]
    spec = load_spec(str(bench.write("s.yaml", f"like: qa\n{text}")))
    request = CompileRequest(spec, sources=tuple(map(str, files)), out=tmp_path / "out", workers=workers)
    if workers == 1:
        with without_writing(monkeypatch):
            checked = check_dataset(request)
    else:
        checked = check_dataset(request)
    assert not (tmp_path / "out").exists()
    assert findings(checked) == findings(compile_dataset(request))
    assert (checked.read, checked.rejected) == (74, 1)


def test_a_worker_of_a_check_leaves_no_folder(bench, tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(bench.write("tmp/here", "").parent))
    files = [bench.rows(f"{name}.jsonl", questions(50)) for name in "abc"]
    request = CompileRequest(load_spec("qa"), sources=tuple(map(str, files)), out=tmp_path / "out", workers=2)
    report = check_dataset(request)
    assert report.kept == 150 and not report.failed
    leftovers = [path.name for path in Path(tempfile.gettempdir()).iterdir()]
    assert leftovers == ["here"]
