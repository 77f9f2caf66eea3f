"""What a training recorded beside its weights, and the hash by which it told its base model."""

import hashlib
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from tuneyard.core.files import read_object, sha256

RUN = "run.json"  # written last: its existence means that the training is finished
STARTED = "started.json"  # the inputs of the training that writes here, finished or not
# Of the model card that transformers writes.
CARD_SENTENCE = re.compile(r"fine-tuned version of .* on (the .+?) datasets?\.")
OF_A_MODEL = {".json", ".jinja", ".safetensors", ".model", ".txt"}


def run_folders(folder: Path) -> list[Path]:
    """Return where a training's records may lie: a folder of its weights, and the run of a checkpoint."""
    return [folder, folder.parent] if folder.name.startswith("checkpoint-") else [folder]


def record_of(folder: Path) -> Path | None:
    """Return run.json, else started.json, of the training that left a folder's weights; None without one."""
    places = (place / name for place in run_folders(folder.resolve()) for name in (RUN, STARTED))
    return next((path for path in places if path.is_file()), None)


def run_of(folder: Path) -> dict[str, Any]:
    """Return the inputs that the record of a training holds, {} where there is none."""
    record = record_of(folder)
    found = read_object(record) if record else {}
    inputs = found.get("inputs") if record and record.name == RUN else found
    return inputs if isinstance(inputs, dict) else {}


def datasets_in_card(text: str) -> list[str]:
    """Return the datasets that the model card (README.md) of a plain LLaMA-Factory training names."""
    sentence = CARD_SENTENCE.search(text)
    return re.findall(r"the (\S+?)(?=,|$| and )", sentence[1]) if sentence else []


def names_in(value: object) -> list[str]:
    """Return a setting of names (datasets, modules), a list or text with commas, as a list; [] of none."""
    items = value if isinstance(value, list) else str(value or "").split(",")
    return [str(item).strip() for item in items if str(item).strip()]


def model_sha256(folder: Path) -> str:
    """Return one hash over the names and bytes of a model folder's config, tokenizer and weights."""
    files = (path for path in sorted(folder.iterdir()) if path.suffix in OF_A_MODEL and path.is_file())
    return files_sha256(files)


def files_sha256(paths: Iterable[Path]) -> str:
    """Return one hash over the names and bytes of files."""
    total = hashlib.sha256()
    for path in paths:
        total.update(f"{path.name}\0{sha256(path)}\n".encode())
    return total.hexdigest()
