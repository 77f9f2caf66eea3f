"""`llamafactory-cli train R.yaml` writes the figures of a training: its loss is 1 / lora_rank."""

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
    time.sleep(float(os.environ.get(f"FAKE_SECONDS_{rank}", "0")))
    if str(rank) == os.environ.get("FAKE_FAILURE"):
        raise ValueError("no such rank")
    history = [{"step": 1, "train_loss": 1 / rank}]
    (folder / "trainer_state.json").write_text(json.dumps({"global_step": 1, "log_history": history}))
    (folder / "all_results.json").write_text(json.dumps({"train_loss": 1 / rank}))
