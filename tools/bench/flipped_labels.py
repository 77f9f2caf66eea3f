"""python -m tools.bench.flipped_labels   how many wrong labels are among the rows with the highest loss.

Flips 60 of the 1,200 labels of the demo's rte sample with a seed, trains the demo's adapter on these rows
with llamafactory-cli, scores them with `tuneyard eval text --token-losses`, and counts the flipped rows among
the 10 % with the highest loss. By chance 10 % of them would be there. Takes about 5 minutes on 2 cores.

Run it after a change of the losses of tokens; docs/data-view.md has its figures.
"""

import argparse
import json
import random
import subprocess
import sys
import tempfile
from collections.abc import Collection
from pathlib import Path

from testing import ROOT
from tuneyard.core.files import write_text
from tuneyard.core.llamafactory.prompt.token_losses import TOKEN_LOSSES, TokenLossFile
from tuneyard.core.training.metrics import ACCURACY
from tuneyard.eval.statistics.rates import rate_of

FLIPPED = 60
TOP = 0.1  # share of the rows, by loss
SAMPLES = ROOT / "samples" / "rte"
MODEL = ROOT / "models" / "demo-base"
ADAPTER = "saves/flipped"
DATASET = "demo_rte_train"
OTHER = {"entailment": "not_entailment", "not_entailment": "entailment"}
TUNEYARD = Path(sys.executable).with_name("tuneyard")


def flip(folder: Path, seed: int) -> set[int]:
    """Write the sample with flipped labels into `folder`. The numbers (from 1) of the flipped rows."""
    rows = [json.loads(line) for line in (SAMPLES / "train.jsonl").read_text(encoding="utf-8").splitlines()]
    flipped = set(random.Random(seed).sample(range(1, len(rows) + 1), FLIPPED))
    lines = []
    for number, row in enumerate(rows, 1):
        if number in flipped:
            row["label"] = OTHER[row["label"]]
        lines.append(json.dumps(row) + "\n")
    write_text(folder / "train.jsonl", "".join(lines))
    return flipped


def run(folder: Path, *arguments: object) -> None:
    """Run `tuneyard ARGUMENTS` in `folder`."""
    subprocess.run([TUNEYARD, *map(str, arguments)], cwd=folder, check=True)


def train_and_score(folder: Path) -> Path:
    """Compile train.jsonl, train the demo's adapter on it and score its rows. The file of their losses."""
    if not (MODEL / "config.json").is_file():
        run(ROOT, "recipe", "base", "--out", MODEL)
    sources = ("--source", "train=train.jsonl", "--source", f"eval={SAMPLES / 'eval.jsonl'}")
    run(folder, "data", "compile", "demo_rte", *sources)
    recipe = ROOT / "recipes" / "demo-rte.yaml"
    run(folder, "recipe", "train", recipe, f"model_name_or_path={MODEL}", f"output_dir={ADAPTER}")
    scoring = ("eval", "text", "--model", MODEL, "--adapter", f"flipped={ADAPTER}", "--no-base")
    options = ("--dataset", DATASET, "--dtype", "bf16", "--no-generate", "--token-losses", "--out", "results")
    run(folder, *scoring, *options)
    return folder / "results" / "flipped" / DATASET / TOKEN_LOSSES


def highest(losses: Path) -> list[int]:
    """Numbers of the rows in the top 10 % by mean loss of their learned tokens."""
    file = TokenLossFile(losses)
    means = {}
    for row in file.rows:
        by_token = file.read(row)
        if by_token is not None and by_token.mean is not None:
            means[row] = by_token.mean
    ranked = sorted(means, key=lambda row: -means[row])
    return ranked[: round(TOP * len(ranked))]


def report(flipped: Collection[int], top: Collection[int]) -> str:
    """Sentence on how many of the flipped rows are among those of the highest loss."""
    share = rate_of([float(row in top) for row in flipped])
    found = round(share.value * len(flipped))
    return (
        f"{found} of {len(flipped)} flipped labels are among the {len(top)} rows with the highest loss: "
        f"{ACCURACY.interval_text(share.with_limits)}; by chance {100 * TOP:.0f} %"
    )


def main() -> None:
    """Run the experiment in a temporary folder, or in --out."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, default=42)
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = (arguments.out or Path(temporary)).resolve()
        folder.mkdir(parents=True, exist_ok=True)
        flipped = flip(folder, arguments.seed)
        print(report(flipped, highest(train_and_score(folder))))


if __name__ == "__main__":
    main()
