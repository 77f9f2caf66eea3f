"""What can be wrong with the datasets of a recipe: missing, changed since, columns that do not fit."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from core.datasets import find_dataset, read_records
from core.errors import Problem, TuneyardError, show_value
from core.files import read_object, sha256
from recipes.recipe import Recipe

ALPACA = {"prompt": "instruction", "query": "input", "response": "output"}
OPTIONAL = {"query", "history", "system", "tools", "images", "videos", "audios"}


@dataclass(frozen=True, slots=True)
class Part:
    """One dataset of a recipe: under which key it is named, and how many records it holds."""

    key: str
    name: str
    rows: int


def read_parts(recipe: Recipe) -> tuple[list[Part], list[Problem]]:
    """Return the datasets of a recipe that can be trained on, and what is wrong with the others."""
    folder = Path(str(recipe.settings.get("dataset_dir", "data")))
    parts, problems = [], []
    for key in ("dataset", "eval_dataset"):
        for name in recipe.names(key):
            try:
                part, found = _read_part(recipe, key, name, folder)
            except TuneyardError as error:
                hint = f"compile it: {_compile_hint(name)}"
                problems.append(Problem("E320", recipe.place(key), str(error), key, hint))
                continue
            parts.append(part)
            problems.extend(found)
    return parts, problems


def _compile_hint(name: str) -> str:
    stem = name.removeprefix("alpaca_").rsplit("_", 1)[0]
    specs = {path.stem.replace("-", "_"): path.stem for path in Path("compiler/specs").glob("*.yaml")}
    return f"make compile DATA={specs[stem]}" if stem in specs else "python -m compiler list"


def _read_part(recipe: Recipe, key: str, name: str, folder: Path) -> tuple[Part, list[Problem]]:
    dataset = find_dataset(name, folder)
    records = read_records(dataset.path)
    place = recipe.place(key)
    found = []
    if not records:
        found.append(Problem("E321", place, f"{dataset.path}: holds no records", key))
    if changed := _changed(dataset.path):
        found.append(Problem("W322", place, changed, key, f"compile it again: {_compile_hint(name)}"))
    misfits = _misfits(dataset.entry, records, str(recipe.settings.get("stage", "sft")))
    found.extend(Problem("E323", str(dataset.path), message, name) for message in misfits)
    return Part(key, name, len(records)), found


def _changed(path: Path) -> str:
    """Return how a file differs from what its manifest says, empty where it does not or there is none."""
    manifest = path.parent / "manifest.json"
    files = read_object(manifest).get("files") if manifest.is_file() else None
    about = files.get(path.name) if isinstance(files, dict) else None
    if isinstance(about, dict) and about.get("sha256") != sha256(path):
        return f"{path}: changed since it was compiled"
    return ""


def _misfits(entry: dict[str, object], records: list[dict[str, object]], stage: str) -> Iterator[str]:
    """Yield what LLaMA-Factory would lose or stumble over in records that are read as `entry` says.

    It drops a row whose answer is no text with a log line only; a column that is named and missing is a
    KeyError minutes later.
    """
    columns = entry.get("columns")
    named: dict[str, object] = columns if isinstance(columns, dict) else {}
    if entry.get("formatting", "alpaca") == "alpaca":
        wanted = {**named} if named else dict(ALPACA)
        if stage == "pt":
            wanted = {"prompt": wanted.get("prompt", "instruction")}
        elif "response" not in wanted:
            yield "its entry names no response column: LLaMA-Factory would drop every row"
            return
    else:
        wanted = {"messages": named.get("messages", "conversations")}
    needed = {ours: str(theirs) for ours, theirs in wanted.items() if ours not in OPTIONAL or ours in named}
    for number, record in enumerate(records, 1):
        for ours, theirs in needed.items():
            if theirs not in record:
                found = ", ".join(record) or "none"
                yield f"record {number}: no column {show_value(theirs)} ({ours}); found {found}"
                return
            value = record[theirs]
            if not isinstance(
                value, list if ours in ("messages", "history", "images", "videos", "audios") else str
            ):
                yield f"record {number}: column {show_value(theirs)} ({ours}) holds {show_value(value)}"
                return
