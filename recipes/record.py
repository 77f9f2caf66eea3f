"""run.json: what a training was made of, so that it can be compared with another and repeated.

Its `inputs` decide whether two runs are the same; versions, times and hardware beside them decide nothing.
"""

import os
import platform
import subprocess
from pathlib import Path

from core.checkout import ROOT, version
from core.files import read_object, sha256, versions
from core.runs import files_sha256, model_sha256
from recipes.data import dataset_dir, files_of, locate
from recipes.recipe import Recipe

PACKAGES = (
    "llamafactory", "torch", "transformers", "peft", "accelerate", "datasets", "deepspeed", "bitsandbytes",
)  # fmt: skip
# Settings that change what is shown or kept, or how fast, and not what is learned.
INCIDENTAL = {
    "bf16_full_eval", "dataloader_num_workers", "dataloader_pin_memory", "ddp_timeout", "disable_tqdm",
    "include_num_input_tokens_seen", "log_level", "logging_dir", "logging_first_step", "logging_steps",
    "logging_strategy", "output_dir", "overwrite_cache", "overwrite_output_dir", "plot_loss",
    "preprocessing_num_workers", "preprocessing_batch_size", "project", "report_to", "resume_from_checkpoint",
    "run_name", "save_steps", "save_total_limit", "use_cpu",
}  # fmt: skip


def inputs_of(recipe: Recipe, weights: Path | None) -> dict[str, object]:
    """Return what decides the result of a recipe: settings, data, model, weights, each with its hash."""
    names = [*recipe.names("dataset"), *recipe.names("eval_dataset")]
    model = recipe.text("model_name_or_path")
    known = model_sha256(Path(model)) if Path(model).is_dir() else None  # of a hub id
    return {
        "settings": {key: recipe.settings[key] for key in sorted(recipe.settings) if key not in INCIDENTAL},
        "data": [_data(name, dataset_dir(recipe)) for name in names],
        "model": {"name": model, "sha256": known},
        "weights": None if weights is None else {"file": str(weights), "sha256": sha256(weights)},
    }


def _data(name: str, folder: str) -> dict[str, object]:
    _, path = locate(name, folder)
    if isinstance(path, str):  # on a hub, made by a script, in a cloud: nothing here to hash
        return {"dataset": name, "file": path, "sha256": None, "manifest_sha256": None}
    manifest = path.parent / "manifest.json"
    return {
        "dataset": name,
        "file": str(path),
        "sha256": sha256(path) if path.is_file() else files_sha256(files_of(path)),
        "manifest_sha256": sha256(manifest) if manifest.is_file() else None,
    }


def run_record(recipe: Recipe, inputs: dict[str, object], facts: dict[str, object]) -> dict[str, object]:
    """Return the content of run.json: the inputs, the facts of this run, versions, commit and result."""
    results = recipe.output_dir / "all_results.json"
    return {
        "recipe": str(recipe.path),
        "recipe_sha256": sha256(recipe.path),
        "overrides": list(recipe.overrides),
        "inputs": inputs,
        **facts,
        "result": read_object(results) if results.is_file() else {},
        "versions": {"python": platform.python_version(), **versions(*PACKAGES)},
        "tuneyard": version(),
        "git": git_state(),
    }


def git_state() -> dict[str, object] | None:
    """Return commit and cleanness of the working tree that this file lies in, None outside of git."""
    command = ["git", "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
    quiet = {**os.environ, "GIT_OPTIONAL_LOCKS": "0"}
    try:
        done = subprocess.run(command, cwd=ROOT, env=quiet, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return None
    commit, dirty, _ = done.stdout.strip().partition("-")
    return {"commit": commit, "clean": not dirty}
