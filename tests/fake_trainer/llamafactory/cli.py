"""`llamafactory-cli train R.yaml` writes the figures of a training: its loss is 1 / lora_rank.

FAKE_AFTER_8 is a file that a training of rank 8 waits for. That of rank FAKE_FAILURE fails.
"""

import json
import os
import sys
import time
from pathlib import Path

import yaml

NOTED = ("CUDA_VISIBLE_DEVICES", "OMP_NUM_THREADS")


def main() -> None:
    settings = yaml.safe_load(Path(sys.argv[2]).read_text(encoding="utf-8"))
    folder, rank = Path(settings["output_dir"]), settings["lora_rank"]
    (folder / "pid").write_text(str(os.getpid()))
    with (folder / "trained").open("a") as file:
        file.write("x")
    (folder / "environment.json").write_text(json.dumps({name: os.environ.get(name) for name in NOTED}))
    after = os.environ.get(f"FAKE_AFTER_{rank}")
    for _ in range(10_000):  # some minutes at most
        if after is None or Path(after).exists():
            break
        time.sleep(0.03)
    if str(rank) == os.environ.get("FAKE_FAILURE"):
        raise ValueError("no such rank")
    history = [{"step": 1, "train_loss": 1 / rank}]
    (folder / "trainer_state.json").write_text(json.dumps({"global_step": 1, "log_history": history}))
    (folder / "all_results.json").write_text(json.dumps({"train_loss": 1 / rank}))
