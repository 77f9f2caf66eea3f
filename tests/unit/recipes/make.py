"""Recipes for tests: a sound one, with its data."""

import json
from pathlib import Path


def write_recipe(folder: Path, **changed: object) -> Path:
    """Write rows, a registry and a sound recipe into a folder, with other settings (None: without)."""
    (folder / "a.json").write_text(json.dumps([{"instruction": "a", "output": "b"}] * 40))
    (folder / "dataset_info.json").write_text('{"a": {"file_name": "a.json"}}')
    settings = {
        "model_name_or_path": "a/b", "stage": "sft", "do_train": True, "finetuning_type": "lora",
        "dataset": "a", "dataset_dir": str(folder), "template": "qwen", "output_dir": str(folder / "out"),
    } | changed  # fmt: skip
    lines = [f"{key}: {json.dumps(value)}" for key, value in settings.items() if value is not None]
    (folder / "r.yaml").write_text("\n".join(lines))
    return folder / "r.yaml"
