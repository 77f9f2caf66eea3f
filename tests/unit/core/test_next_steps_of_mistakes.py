"""What a newcomer gets wrong has a next step in its message."""

from pathlib import Path

import pytest

from tuneyard.core.cli.main import cli as tuneyard
from tuneyard.core.errors import run_command

RECIPE = "model_name_or_path: a/b\nstage: sft\ndataset: x\noutput_dir: out\n"


@pytest.mark.parametrize(
    ("words", "code", "next_step"),
    [
        (["data", "init", "mine.cvs"], 2, 'mine.cvs: source not found; did you mean "mine.csv"?'),
        (["recipe", "check", "mien.yaml"], 2, 'mien.yaml: recipe not found; did you mean "mine.yaml"?'),
        (["eval", "compare", "zzz", "--out", "o"], 2, "zzz: results not found; name one that is there: ls "),
        (
            ["data", "compile", "mine.yaml"],
            1,
            "a training recipe, not a spec: tuneyard recipe check mine.yaml",
        ),
        (["data", "compile", "nope"], 2, "`tuneyard data list` shows them"),
        (["data", "--out", "x", "compile"], 2, "Options come after the command: "),
        (["data", "init", "my", "file.csv"], 2, "(file.csv); a path with spaces needs quotes"),
    ],
)
def test_a_mistake_has_a_next_step(
    words: list[str],
    code: int,
    next_step: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("mine.csv").write_text("a\n1\n")
    Path("mine.yaml").write_text(RECIPE)
    monkeypatch.setattr("sys.argv", ["tuneyard", *words])
    with pytest.raises(SystemExit) as ended:
        run_command(tuneyard)
    message = capsys.readouterr().err
    assert ended.value.code == code and next_step in message and len(message.splitlines()) < 6
