"""Recipes of four stages on a tiny model, with their datasets."""

import json
from pathlib import Path

from tests.json_files import write_json

QUESTIONS = [f"Is {n} even? Answer yes or no." for n in range(64)]
DATA = {
    "even": [
        {"instruction": question, "input": "", "output": "no" if n % 2 else "yes"}
        for n, question in enumerate(QUESTIONS)
    ],
    "pairs": [{"instruction": question, "chosen": "yes", "rejected": "no"} for question in QUESTIONS],
    "marked": [
        {"instruction": question, "output": "yes", "good": n % 3 > 0} for n, question in enumerate(QUESTIONS)
    ],
    "text": [{"text": question * 4} for question in QUESTIONS],
}
COLUMNS = {
    "even": {},
    "pairs": {
        "ranking": True,
        "columns": {"prompt": "instruction", "chosen": "chosen", "rejected": "rejected"},
    },
    "marked": {"columns": {"prompt": "instruction", "response": "output", "kto_tag": "good"}},
    "text": {"columns": {"prompt": "text"}},
}
STAGES = {
    "sft": {},
    "dpo": {"stage": "dpo", "dataset": "pairs"},
    "kto": {"stage": "kto", "dataset": "marked"},
    "pt": {"stage": "pt", "dataset": "text", "packing": True, "cutoff_len": 48},
}


def write_recipes(folder: Path, model: Path) -> Path:
    """Write a recipe of 16 steps for each stage, which saves every fourth, and return that of SFT."""
    entries = {}
    for name, rows in DATA.items():
        write_json(folder / f"{name}.json", rows)
        entries[name] = {"file_name": f"{name}.json", **COLUMNS[name]}
    write_json(folder / "dataset_info.json", entries)
    settings = {
        "model_name_or_path": str(model),
        "stage": "sft",
        "do_train": True,
        "finetuning_type": "lora",
        "lora_rank": 4,
        "lora_dropout": 0.1,  # so that a resumed run is the same only if the random state is
        "dataset_dir": str(folder),
        "dataset": "even",
        "cutoff_len": 64,
        "overwrite_cache": True,
        "output_dir": str(folder / "out"),
        "logging_steps": 1,
        "save_steps": 4,
        "report_to": "none",
        "per_device_train_batch_size": 4,
        "learning_rate": 0.01,
        "max_steps": 16,
    }
    for stage, changed in STAGES.items():
        text = json.dumps({**settings, **changed}, indent=1)  # JSON is YAML too
        (folder / f"{stage}.yaml").write_text(text)
    return folder / "sft.yaml"
