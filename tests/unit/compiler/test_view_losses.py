"""`data view --loss`: the command that scores the rows, and the file of their losses."""

import json
import subprocess
import sys
import time

import psutil
import pytest

from tests.messages import raises
from tuneyard.compiler.cli import cli
from tuneyard.compiler.view.losses import LossRequest, scored_losses, scoring_words
from tuneyard.core.errors import ContentError, RequestError
from tuneyard.core.prompt.token_losses import TokenLossFile


def test_an_adapter_in_saves_is_found_by_its_name_and_places_are_absolute(tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "saves" / "mine").mkdir(parents=True)
    (tmp_path / "model").mkdir()
    words = scoring_words(LossRequest("model", "mine", "rows", tmp_path, 20, "qwen", 128))
    for pair in (
        ["--model", str(tmp_path / "model")],
        ["--adapter", f"adapted={tmp_path / 'saves' / 'mine'}"],
        ["--template", "qwen"],
        ["--max-seq-length", "128"],
        ["--limit", "20"],
        ["--dataset-dir", str(tmp_path)],
    ):
        assert words[words.index(pair[0]) + 1] == pair[1]
    assert {"--token-losses", "--no-generate", "--no-base", "--quiet"} < set(words)
    plain = scoring_words(LossRequest("org/model", None, "rows", tmp_path, 20))
    assert "org/model" in plain and not {"--adapter", "--no-base", "--template"} & set(plain)


def test_the_first_rows_are_scored_in_a_process(tmp_path, tiny_model) -> None:
    rows = [{"instruction": f"Is {number} even?", "input": "", "output": "yes"} for number in range(4)]
    (tmp_path / "rows.json").write_text(json.dumps(rows))
    (tmp_path / "dataset_info.json").write_text(json.dumps({"rows": {"file_name": "rows.json"}}))
    with scored_losses(LossRequest(str(tiny_model), None, "rows", tmp_path, 3)) as path:
        file = TokenLossFile(path)
        assert file.rows == [1, 2, 3] and file.read(2).mean > 0
    assert not path.exists()


def test_the_scoring_ends_when_the_command_is_killed(tmp_path, tiny_model) -> None:
    (tmp_path / "rows.json").write_text(json.dumps([{"instruction": "a", "input": "", "output": "b"}]))
    (tmp_path / "dataset_info.json").write_text(json.dumps({"rows": {"file_name": "rows.json"}}))
    words = ["data", "view", "rows", "--dataset-dir", str(tmp_path), "--loss", str(tiny_model)]
    command = subprocess.Popen(
        [sys.executable, "-m", "tuneyard", *words, "--template", "qwen"],
        cwd=tmp_path,
        stderr=subprocess.DEVNULL,
    )
    family: list[psutil.Process] = []
    deadline = time.monotonic() + 60
    while not any("--token-losses" in each.cmdline() for each in family):
        assert time.monotonic() < deadline and command.poll() is None
        time.sleep(0.05)
        family = psutil.Process(command.pid).children(recursive=True)
    command.kill()
    command.wait()
    _, alive = psutil.wait_procs(family, timeout=5)  # scoring takes longer
    assert not alive


def test_a_scoring_that_fails_is_named(tmp_path, tiny_model) -> None:
    (tmp_path / "dataset_info.json").write_text("{}")
    with (
        pytest.raises(ContentError, match="--loss .*scoring failed"),
        scored_losses(LossRequest(str(tiny_model), None, "rows", tmp_path, 3)),
    ):
        pass


@pytest.mark.parametrize("words", [["--adapter", "x"], ["--loss", "m", "--results", "."]])
def test_options_that_do_not_go_together_are_refused(words) -> None:
    with raises(RequestError, words[0]):
        cli.main(["view", "rows", *words], standalone_mode=False)
