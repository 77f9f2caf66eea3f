"""Rows scored by the real vLLM (tests/vllm_runs.py, in its environment), and by transformers here."""

import json
import os
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

from testing.tiny import make_tiny, write_adapter
from tests.cli.scoring import call, predictions
from tests.conftest import ROOT
from tests.json_files import write_json
from tuneyard.eval import nli
from tuneyard.eval.runs.results import PREDICTIONS

VLLM = Path(os.environ.get("TUNEYARD_VLLM", ROOT / ".venv-vllm")) / "bin/python"
needs_vllm = pytest.mark.skipif(not VLLM.exists(), reason=f"no vLLM in {VLLM.parent.parent}")
ROWS = [
    {
        "instruction": f'Does "{number} men walk" imply that "{number + number % 3} people are outside"?',
        "output": ("yes", "no", "maybe")[number % 3],
        "premise": number // 2,
    }
    for number in range(24)
]
AT_ONCE = 8  # rows of a candidate in a call
GENERATE = ("--mode", "generate", "--max-new-tokens", "8")


def write_rows(home: Path) -> None:
    """Write the rows as walks.json, and others for shots as train.json."""
    write_json(home / "walks.json", ROWS)
    examples = [{**row, "instruction": row["instruction"].replace("men", "women")} for row in ROWS]
    write_json(home / "train.json", examples)


def check_labels(lines: Sequence[dict], others: Sequence[dict], nats: float) -> list[float]:
    """Log-probabilities within `nats` of each other, and the same labels but for ties; the differences."""
    differences = []
    for line, other in zip(lines, others, strict=True):
        assert line["cluster"] == other["cluster"]
        assert line["choices"] == pytest.approx(other["choices"], abs=nats)
        best, second = sorted(other["choices"].values())[-1:-3:-1]
        if best - second > 2 * nats:
            assert line["predicted_output"] == other["predicted_output"]
        differences += [abs(line["choices"][label] - value) for label, value in other["choices"].items()]
    return differences


@dataclass(frozen=True)
class Run:
    """A run by vLLM: its folder, further options, and the calls after which it is interrupted."""

    out: str
    options: Sequence[str]
    stop_after: int | None = None


class Comparison:
    """A model of `heads` attention heads, two adapters and rows in a folder, for runs with both backends."""

    def __init__(self, home: Path, dtype: str, *, hidden: int, heads: int) -> None:
        self.home, self.dtype = home, dtype
        model = make_tiny(home / "model", hidden_size=hidden, num_attention_heads=heads)
        shapes = {  # outputs, inputs
            "model.layers.0.self_attn.q_proj": (hidden, hidden),
            "model.layers.1.mlp.down_proj": (hidden, 128),
        }
        for seed, name in enumerate(("one", "two")):
            write_adapter(home / name, shapes, rank=(4, 12)[seed], alpha=1, seed=seed)
        write_rows(home)
        fixed = ["--model", model, "--data", home / "walks.json", "--cluster", "premise", "--dtype", dtype]
        adapters = ["--adapter", f"one={home / 'one'}", "--adapter", f"two={home / 'two'}"]
        self.words = [*map(str, fixed), *adapters]
        self.shots = ("--shots", "2", "--shots-from", str(home / "train.json"))

    def by_transformers(self, out: str, *options: str) -> None:
        """Score in this process."""
        call(nli.cli, *self.words, "--out", self.home / out, *options)

    def by_vllm(self, runs: Sequence[Run]) -> list[list[int]]:
        """Score in one process with vLLM; the number of requests in each call to vLLM, by run."""
        listed = []
        for run in runs:
            words = [*self.words, "--out", str(self.home / run.out), "--backend", "vllm", *run.options]
            listed.append({"stop_after": run.stop_after, "arguments": words})
        write_json(self.home / "runs.json", listed)
        environment = {**os.environ, "VLLM_CPU_KVCACHE_SPACE": "1", "HF_HUB_OFFLINE": "1"}
        done = subprocess.run(
            [VLLM, "-m", "tests.vllm_runs", self.home / "runs.json"],
            cwd=ROOT,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=1500,
        )
        assert done.returncode == 0, done.stdout[-6000:]
        counts = [line for line in done.stdout.splitlines() if line.startswith('{"calls"')]
        assert len(counts) == len(runs)
        return [json.loads(line)["calls"] for line in counts]

    def predictions(self, out: str, candidate: str) -> list[dict]:
        """Lines of a candidate's predictions."""
        return predictions(self.home / out / candidate / "walks")

    def bytes(self, out: str) -> dict[str, bytes]:
        """All predictions of a run, by candidate."""
        return {path.parent.parent.name: path.read_bytes() for path in (self.home / out).rglob(PREDICTIONS)}

    def check_labels(self, out: str, expected: str, candidates: Sequence[str], nats: float) -> None:
        """Log-probabilities within `nats` of the expected run's, and the same labels but for ties."""
        differences = []
        for candidate in candidates:
            others = self.predictions(expected, candidate)
            differences += check_labels(self.predictions(out, candidate), others, nats)
        print(f"{out}: {len(differences)} labels, largest difference {max(differences):.2g} nats")
        assert self.predictions(out, candidates[-1]) != self.predictions(out, candidates[0])

    def same_answers(self, out: str, expected: str, candidates: Sequence[str]) -> int:
        """Count the equal generated answers."""
        same = 0
        for candidate in candidates:
            lines, others = self.predictions(out, candidate), self.predictions(expected, candidate)
            for line, other in zip(lines, others, strict=True):
                same += line["model_output"] == other["model_output"]
        print(f"{out}: {same} of {len(candidates) * len(ROWS)} answers alike")
        return same
