"""A mailed suite runs none of the programs that it brings: SECURITY.md, "Code"."""

from pathlib import Path

import pytest

from tests.cli import scoring
from tests.json_files import read_json, write_lines
from tests.messages import raises
from tuneyard.core.errors import ContentError, RequestError
from tuneyard.eval.suite import cli


@pytest.fixture
def mailed(tmp_path: Path) -> Path:
    """A folder with rows whose tests leave the file `ran`."""
    test = f"not open({str(tmp_path / 'ran')!r}, 'w').write('x') or True"
    write_lines(tmp_path / "rows.jsonl", [{"instruction": "Write f.", "output": "f = 1", "tests": [test]}])
    return tmp_path


def call(folder: Path, step: str, *words: str) -> None:
    (folder / "suite.yaml").write_text(f"programs: {{command: code, data: rows.jsonl{step}}}\n")
    scoring.ask(cli, lambda _: "f = 1", folder / "suite.yaml", "--out", folder / "out", *words)


@pytest.mark.parametrize(
    "key", ["run-code: true", "run_code: true", "run-code: null", "run-code: [true]", "run-code: 'yes'"]
)
@pytest.mark.parametrize("words", [[], ["--run-code"]])
def test_no_key_of_the_file_allows_programs(mailed: Path, key: str, words: list[str]) -> None:
    with raises(ContentError, "suite.yaml:1", key.partition(":")[0]):
        call(mailed, f", {key}", *words)
    assert not (mailed / "ran").exists()


def test_a_suite_runs_no_program_unless_the_command_line_allows_it(mailed: Path) -> None:
    with raises(RequestError, "suite.yaml:1", "--run-code", "--skip programs"):
        call(mailed, "")
    assert not (mailed / "ran").exists()
    call(mailed, "", "--run-code")
    assert read_json(mailed / "out/programs/m/rows/results.json")["n"] == 1
