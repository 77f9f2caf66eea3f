"""From a training to the figure of its test rows: after another compile, in a merge, fused, and for a hub."""

from pathlib import Path

import pytest

from testing.forks import Forks
from tests.cli.scoring import call
from tests.json_files import read_json, write_lines
from tests.messages import printed_line
from tuneyard.adapters.__main__ import cli as adapters
from tuneyard.compiler.cli import cli as data
from tuneyard.core.datasets.trained_examples import read_trained_rows
from tuneyard.core.training.training_run import TRAINED_ROWS
from tuneyard.eval.nli import cli as nli

pytestmark = pytest.mark.slow

SPEC = """about: numbers
source: {files: rows.jsonl}
columns: {question: [q], answer: [a]}
write:
  - {dataset: numbers, file: numbers.json, format: alpaca, instruction: "{question}", output: "{answer}"}
"""
RECIPE = """model_name_or_path: MODEL
stage: sft
do_train: true
finetuning_type: lora
lora_rank: 4
dataset: numbers
dataset_dir: FOLDER/dataset_info
cutoff_len: 64
template: qwen
overwrite_cache: true
output_dir: FOLDER/saves/numbers
report_to: none
per_device_train_batch_size: 50
num_train_epochs: 1
learning_rate: 0.01
"""


def rows(first: int, last: int) -> list[dict[str, str]]:
    return [{"q": f"Is {n} even?", "a": "no" if n % 2 else "yes"} for n in range(first, last)]


def test_thirty_of_two_hundred_rows_are_known_again_for_ever(
    tmp_path: Path,
    tiny_model: Path,
    forks: Forks,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("spec.yaml").write_text(SPEC)
    recipe = RECIPE.replace("MODEL", str(tiny_model)).replace("FOLDER", str(tmp_path))
    Path("recipe.yaml").write_text(recipe)
    write_lines(Path("rows.jsonl"), rows(0, 200))
    call(data, "compile", "spec.yaml")
    forks.run("recipes", "train", tmp_path / "recipe.yaml")
    kept = read_trained_rows(Path("saves/numbers"))
    assert kept is not None and len(kept) == 200
    assert Path("saves/numbers", TRAINED_ROWS).stat().st_size == 128 + 8 * 200
    write_lines(Path("rows.jsonl"), rows(500, 600))
    call(data, "compile", "spec.yaml")  # its rows are gone
    asked = [{"instruction": row["q"], "input": "", "output": row["a"]} for row in rows(170, 260)]
    write_lines(Path("test.jsonl"), asked)

    def trained_on(out: str, model: object, *adapters: str) -> dict[str, object]:
        named = [word for adapter in adapters for word in ("--adapter", adapter)]
        options = ["--data", "test.jsonl", "--out", out]
        call(nli, "--model", model, *named, *options)
        printed_line(capsys.readouterr().err, "warning", "trained on 30 of these 90 examples")
        name = adapters[0] if adapters else "base"
        (results,) = Path(out).glob(f"{name.partition('=')[0]}/*/results.json")
        counts: dict[str, object] = read_json(results)["trained_on"]
        return counts

    exact = {"examples": 30, "at_most": False, "same_name": [], "not_checked": [], "chose": []}
    assert trained_on("out/one", tiny_model, "numbers") == exact | {
        "sources": ["saves/numbers/training.json"]
    }
    call(adapters, "merge", "numbers=0.5", "numbers=0.25", "--out", "saves/both")
    assert trained_on("out/both", tiny_model, "both")["examples"] == 30
    call(adapters, "fuse", "numbers", "--base", tiny_model, "--out", "models/fused")
    assert trained_on("out/fused", "models/fused")["examples"] == 30
    hub = ("export", "numbers", "--to", "hub", "--repo", "me/x", "--license", "mit", "--dry-run")
    capsys.readouterr()
    call(adapters, *hub)
    assert TRAINED_ROWS not in capsys.readouterr().out
    call(adapters, *hub, "--with-fingerprints")
    assert TRAINED_ROWS in capsys.readouterr().out
