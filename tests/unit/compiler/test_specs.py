"""Each spec of ours compiles its example in tests/examples/good to the golden bytes."""

import pytest

from tests.conftest import ROOT
from tests.runs_cut import tree
from tuneyard.compiler.engine.request import CompileRequest
from tuneyard.compiler.publish.compile import compile_dataset
from tuneyard.compiler.spec.file import known_specs
from tuneyard.compiler.spec.load import load_spec
from tuneyard.core.datasets import read_records

GOOD = ROOT / "tests/examples/good"
GOLDEN = ROOT / "tests/golden/compiler"
DEMO = ("demo_rte", "demo_mnli")


def sources(spec) -> tuple[str, ...]:
    folder = GOOD / spec.name
    files = sorted(path for path in folder.iterdir() if path.is_file())
    return tuple(f"{path.stem}={path}" if spec.mix else str(path) for path in files)


@pytest.mark.parametrize("name", [name for name in known_specs() if name not in DEMO])
def test_example_compiles_to_the_golden_bytes(name, tmp_path, request):
    spec = load_spec(name)
    report = compile_dataset(CompileRequest(spec, sources=sources(spec), out=tmp_path))
    assert not report.problems.errors, report.problems.errors
    files = [path for path in (tmp_path / name).iterdir() if path.name != "manifest.json"]
    made = {path.name: path.read_bytes() for path in files if path.suffix != ".npy"}
    golden = GOLDEN / name
    if request.config.getoption("regenerate"):
        golden.mkdir(parents=True, exist_ok=True)
        for file, data in made.items():
            (golden / file).write_bytes(data)
    assert made == tree(golden)


@pytest.mark.parametrize("name", ["qa", "io", "alpaca", "pr", "reports"])
def test_bundled_specs_of_any_text_write_arrays(name):
    """In lines, answers that are all dates would be times to LLaMA-Factory's loader."""
    assert [output.file for output in load_spec(name).outputs] == [f"{name}.json"]


def test_the_mixed_file_is_read_as_instructions(tmp_path):
    """`compile io` takes the file that a mixture writes for other programs, and keeps every row as it is."""
    mixture_spec = load_spec("mix-small")
    compile_dataset(CompileRequest(mixture_spec, sources=sources(mixture_spec), out=tmp_path))
    mixed = tmp_path / "mix-small/mixed_finetune_dataset.jsonl"
    report = compile_dataset(CompileRequest(load_spec("io"), sources=(str(mixed),), out=tmp_path))
    assert not report.problems.errors and report.kept == report.read > 0
    records = read_records(tmp_path / "io/io.json")
    assert {record.pop("system") for record in records} == {""}
    assert records == read_records(mixed)
