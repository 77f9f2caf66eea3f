"""Datasets and model of a recipe: where each lies, how many rows it has, whether it changed since compiled.

Whether rows can be trained on is LLaMA-Factory's to say: recipes/rows.py asks it.
"""

import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from core.checkout import ROOT
from core.datasets import PARTS, REGISTRY, filled, not_registered, other_folder, read_records, read_registry
from core.errors import ContentError, Problem, RequestError, TuneyardError
from core.files import no_folder, read_object, sha256
from recipes.recipe import Recipe
from recipes.rows import COUNTED

ELSEWHERE = ("hf_hub_url", "ms_hub_url", "om_hub_url", "script_url", "cloud_file_name")
HELD_OUT = ("eval", "test", "dev", "validation", "val")
WEIGHTS = (
    "model.safetensors", "model.safetensors.index.json", "pytorch_model.bin", "pytorch_model.bin.index.json",
)  # fmt: skip
OTHER_HUBS = ("USE_MODELSCOPE_HUB", "USE_OPENMIND_HUB")  # LLaMA-Factory's switches; not looked into


@dataclass(frozen=True, slots=True)
class NamedDataset:
    """One dataset of a recipe: under which key it is named, its rows (None: not counted), where it lies.

    `elsewhere` says what kind of source it is that is no local file; its rows cannot be looked at.
    """

    key: str
    name: str
    rows: int | None
    elsewhere: str = ""


def read_datasets(recipe: Recipe) -> tuple[list[NamedDataset], list[Problem]]:
    """Return the datasets of a recipe that can be trained on, and what is wrong with the others."""
    datasets, problems = [], []
    for key in ("dataset", "eval_dataset"):
        for name in recipe.names(key):
            try:
                dataset, found = _read_dataset(recipe, key, name)
            except TuneyardError as error:
                there = other_folder(name, Path(dataset_dir(recipe)))
                hint = "" if there else f"compile it: {_compile_hint(name)}"
                problems.append(recipe.problem("E320", key, str(error), hint))
                continue
            datasets.append(dataset)
            problems.extend(found)
    return datasets, problems


def _compile_hint(name: str) -> str:
    stem = name.removeprefix("alpaca_").rsplit("_", 1)[0]
    specs = {path.stem.replace("-", "_"): path.stem for path in (ROOT / "compiler/specs").glob("*.yaml")}
    return f"python -m compiler compile {specs[stem]}" if stem in specs else "python -m compiler list"


def dataset_dir(recipe: Recipe) -> str:
    """Return the folder of a recipe's registry, or ONLINE or REMOTE:… where it lies on a hub."""
    return str(recipe.settings.get("dataset_dir", "data"))


def locate(name: str, folder: str, key: str = "dataset") -> tuple[dict[str, object], Path | str]:
    """Return a dataset's entry and its file (or folder of files), or what kind of source it is elsewhere.

    `RequestError` where it is not registered (the hint names a set that goes with `key`) or not there.
    """
    if folder == "ONLINE" or folder.startswith("REMOTE:"):
        return {}, f"dataset_dir: {folder}"
    entries = read_registry(Path(folder))
    if name not in entries:
        raise not_registered(name, Path(folder), entries, _alike(entries, key))
    entry = entries[name]
    if source := next((source for source in ELSEWHERE if source in entry), ""):
        return entry, f"{source}: {entry[source]}"
    file_name = entry.get("file_name")
    if not isinstance(file_name, str):
        raise ContentError(f"{Path(folder) / REGISTRY}: {name}: names no file_name and no other source")
    path = Path(folder) / file_name
    if not path.exists():
        raise RequestError(f"{path}: file of dataset {name!r} not found; compile it again")
    return entry, path


def files_of(path: Path) -> list[Path]:
    """Return the files of a dataset: itself, or those of its folder."""
    return sorted(file for file in path.iterdir() if file.is_file()) if path.is_dir() else [path]


def _alike(names: Iterable[str], key: str) -> list[str]:
    """Return the names that a misspelt one can stand for: held-out datasets are not trained on."""
    return [name for name in names if key == "eval_dataset" or not name.endswith(HELD_OUT)]


def _read_dataset(recipe: Recipe, key: str, name: str) -> tuple[NamedDataset, list[Problem]]:
    entry, path = locate(name, dataset_dir(recipe), key)
    if isinstance(path, str):
        return NamedDataset(key, name, None, path), []
    if path.suffix not in COUNTED or path.is_dir():
        return NamedDataset(key, name, None), []
    records = read_records(path)
    rows, found = len(records), []
    if not rows:
        found.append(recipe.problem("E321", key, f"{path}: holds no records"))
    if recipe.settings.get("stage") != "pt":
        found += [recipe.problem("W324", key, *told) for told in _left_out(name, entry, records)]
    if changed := _changed(path):
        found.append(recipe.problem("W322", key, changed, f"compile it again: {_compile_hint(name)}"))
    sampled = entry.get("num_samples")
    return NamedDataset(key, name, sampled if isinstance(sampled, int) else rows), found


def _left_out(
    name: str, entry: dict[str, object], records: list[dict[str, object]]
) -> Iterator[tuple[str, str]]:
    """Yield (what, how to mend it) of each part that records hold and LLaMA-Factory leaves out silently."""
    columns = entry.get("columns")
    named = columns.values() if isinstance(columns, dict) else ()
    for part in (part for part in PARTS if part not in named):
        if count := len(filled([record.get(part) for record in records])):
            share = f"{count} of {len(records)} records"
            what = f"{name}: {part!r} is filled in {share}, and the entry does not name it"
            yield what, f'LLaMA-Factory leaves it out; add "{part}": "{part}" to the entry\'s `columns`'


def _changed(path: Path) -> str:
    """Return how a file differs from what its manifest says, empty where it does not or there is none."""
    manifest = path.parent / "manifest.json"
    files = read_object(manifest).get("files") if manifest.is_file() else None
    about = files.get(path.name) if isinstance(files, dict) else None
    if isinstance(about, dict) and about.get("sha256") != sha256(path):
        return f"{path}: changed since it was compiled"
    return ""


def require_model(recipe: Recipe) -> None:
    """Raise `RequestError` where a model is neither here nor to be downloaded; nothing is written."""
    name = recipe.text("model_name_or_path")
    if Path(name).is_dir() or any(os.environ.get(hub) for hub in OTHER_HUBS) or _cached(recipe, name):
        return
    import httpx
    from huggingface_hub import get_hf_file_metadata, hf_hub_url
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError

    token = recipe.settings.get("hf_hub_token")
    try:
        url = hf_hub_url(name, "config.json", revision=_revision(recipe))
        get_hf_file_metadata(url, token=str(token) if token else None)
    except (OSError, httpx.HTTPError, HfHubHTTPError, HFValidationError) as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        hub = f"not in the hub's cache; not found on, or cannot reach, the Hugging Face Hub: {reason[:200]}"
        told = no_folder(name, f"{hub}; give a local folder: model_name_or_path=DIR")
        raise RequestError(f"{recipe.place('model_name_or_path')}: {told}") from error


def _cached(recipe: Recipe, name: str) -> bool:
    """Return whether weights lie in the cache; config and tokenizer alone may come from a check."""
    from huggingface_hub import try_to_load_from_cache
    from huggingface_hub.errors import HFValidationError

    folder = recipe.settings.get("cache_dir")
    where = str(folder) if folder else None, _revision(recipe)
    try:
        return any(isinstance(try_to_load_from_cache(name, file, *where), str) for file in WEIGHTS)
    except HFValidationError:
        return False


def _revision(recipe: Recipe) -> str:
    return str(recipe.settings.get("model_revision") or "main")
