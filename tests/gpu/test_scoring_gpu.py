"""Scoring on one GPU: the labels of a CPU, and the bytes of an unbroken run after a kill. `pytest -m gpu`."""

import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from testing.tiny import make_tiny, write_adapter
from tests.cli.scoring import predictions
from tests.conftest import ROOT
from tests.gpu import gpus
from tests.json_files import write_json
from tests.processes import wait_until
from tests.runs_cut import tree
from tests.vllm_compare import check_labels

pytestmark = [pytest.mark.gpu, pytest.mark.timeout(900)]
NATS = 0.05  # bf16 has three digits
MODES = {"choice": [], "generate": ["--mode", "generate", "--max-new-tokens", "8"]}


@pytest.fixture(scope="module")
def words(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """The words of a run over rows of different lengths, without mode and folder of the results."""
    gpus(1)
    folder = tmp_path_factory.mktemp("scored")
    model = make_tiny(folder / "model", hidden_size=256, intermediate_size=512, num_hidden_layers=12)
    adapter = write_adapter(folder / "one", {"model.layers.0.mlp.down_proj": (256, 512)})
    rows = []
    for number in range(300):
        question = f"Is {number} + {number} even? " + "Think well. " * (number % 19)
        rows.append({"instruction": question, "output": ["yes", "no"][number % 2], "pair": number // 2})
    write_json(folder / "sums.json", rows)
    data = ["--data", folder / "sums.json", "--cluster", "pair"]
    given = ["--model", model, "--adapter", f"one={adapter}", *data]
    return ["-m", "eval.nli", *map(str, given)]


def score(words: Sequence[str], out: Path, *options: str) -> None:
    subprocess.run([sys.executable, *words, *options, "--out", str(out)], cwd=ROOT, check=True)


def test_labels_in_bf16_and_fp32_are_those_of_a_cpu(words, tmp_path, monkeypatch):
    score(words, tmp_path / "bf16")
    score(words, tmp_path / "fp32", "--dtype", "fp32")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    score(words, tmp_path / "cpu")
    for name, nats in (("bf16", NATS), ("fp32", 0.001)):
        for candidate in ("base", "one"):
            here, there = (predictions(tmp_path / out / candidate / "sums") for out in (name, "cpu"))
            differences = check_labels(here, there, nats)
            print(f"{name}, {candidate}: at most {max(differences):.6f} nats from the CPU")


@pytest.mark.parametrize("mode", MODES)
def test_a_killed_run_resumed_ends_as_an_unbroken_one(words, tmp_path, mode):
    options = [*MODES[mode], "--batch-tokens", "2000"]
    out = tmp_path / "out"
    score(words, out, *options)
    whole = tree(out)
    out.rename(tmp_path / "whole")
    process = subprocess.Popen([sys.executable, *words, *options, "--out", str(out)], cwd=ROOT)
    log = out / "base/sums/predictions.jsonl"
    wait_until(lambda: log.exists() and log.read_bytes().count(b"\n") > 50, process)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert log.read_bytes().count(b"\n") < 300
    score(words, out, *options, "--resume")
    again = {name: data.replace(b" --resume", b"") for name, data in tree(out).items()}
    assert again == whole
