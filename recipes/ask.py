"""LLaMA-Factory's view of a recipe from a process of its own, remembered under $XDG_CACHE_HOME/tuneyard."""

import contextlib
import hashlib
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import click

from core.checkout import ROOT
from core.errors import ContentError, TuneyardError
from core.files import read_object, sha256, versions, write_json
from core.packages import need
from recipes.data import dataset_dir, files_of, locate
from recipes.launch import environment
from recipes.recipe import Recipe
from recipes.schema import known_keys

TOKENIZER = ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja", "config.json", "vocab.json")


def ask(recipe: Recipe, model: str) -> dict[str, Any]:
    """Return what recipes/inspect.py finds in a recipe's known keys; `ContentError` where it crashed."""
    settings = {key: value for key, value in recipe.settings.items() if key in known_keys()}
    settings["model_name_or_path"] = model
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    remembered = cache / "tuneyard" / "inspect" / f"{_key(settings, recipe)}.json"
    with contextlib.suppress(OSError, ContentError):  # none yet, or broken: asked again
        return read_object(remembered)
    click.echo(f"{recipe.path}: asking LLaMA-Factory …", err=True)
    answer = _inspect(settings)
    if '"error":' not in json.dumps(answer):  # which another time may not be there
        with contextlib.suppress(OSError):  # a cache that cannot be written costs time only
            write_json(remembered, answer)
    return answer


def ask_weights(recipe: Recipe, model: str, weights: Path, count: int) -> list[list[tuple[str, float]]]:
    """Return the first rows of a recipe's data as (text, weight) pairs; `ContentError` where that fails."""
    settings = {**recipe.settings, "model_name_or_path": model}
    rows: list[list[tuple[str, float]]] = _inspect(settings, str(weights), str(count))["rows"]
    return rows


def _key(settings: dict[str, object], recipe: Recipe) -> str:
    data: dict[str, object] = {}
    for name in [*recipe.names("dataset"), *recipe.names("eval_dataset")]:
        try:
            entry, path = locate(name, dataset_dir(recipe))
            data[name] = [entry, path if isinstance(path, str) else [sha256(file) for file in files_of(path)]]
        except TuneyardError:
            data[name] = None
    model = Path(str(settings["model_name_or_path"]))
    tokenizer = {name: sha256(model / name) for name in TOKENIZER if (model / name).is_file()}
    code = [sha256(ROOT / name) for name in ("recipes/inspect.py", "recipes/rows.py", "core/llamafactory.py")]
    parts = [settings, data, tokenizer, versions("llamafactory", "transformers", "tokenizers"), code]
    return hashlib.sha256(json.dumps(parts, sort_keys=True, default=str).encode()).hexdigest()


def _inspect(settings: dict[str, object], *more: str) -> dict[str, Any]:
    need("llamafactory")
    with tempfile.NamedTemporaryFile("w", suffix=".json", encoding="utf-8") as file:
        json.dump(settings, file, default=str)  # bytes of !!binary
        file.flush()
        process = subprocess.Popen(
            [sys.executable, "-P", "-m", "recipes.inspect", file.name, *more],
            env={**environment(), "HF_HUB_OFFLINE": "1", "LLAMAFACTORY_VERBOSITY": "ERROR"},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        text = bytearray()
        while process.stderr and (piece := os.read(process.stderr.fileno(), 4096)):
            text += piece
            if b"counting tokens" in piece:  # its progress
                sys.stderr.write(piece.decode(errors="replace"))
        answer = process.stdout.read() if process.stdout else b""
    if process.wait():
        log = text.decode(errors="replace").replace("\r", "\n")
        reason = next((line for line in reversed(log.splitlines()) if line.strip()), "no reason given")
        raise ContentError(f"LLaMA-Factory could not be asked: {reason}")
    found: dict[str, Any] = json.loads(answer)
    return found
