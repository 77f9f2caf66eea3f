"""Merge recipes: what the command line of `merge` says, in a YAML file."""

import json
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from adapters.merge import MergeOptions, MergePlan
from adapters.methods import methods
from adapters.store import SAVES
from adapters.weighted import WeightedAdapter, parse_reference_weight
from core.documents import read_mapping
from core.errors import ContentError, nearest, show_value

FIELDS = ("adapters", "base", "dtype", "energy", "method", "out", "rank")
DTYPES = {"fp32": "F32", "fp16": "F16", "bf16": "BF16"}


@dataclass(frozen=True, slots=True)
class MergeRecipe:
    """A merge as written down: adapters with weights, the method, and folders where it names them."""

    wanted: list[tuple[str, float]]
    options: MergeOptions
    out: Path | None
    base: Path | None


def read_recipe(path: Path) -> MergeRecipe:
    """Read a merge recipe; `ContentError` names the field that is wrong."""
    fields = read_mapping(path, "merge recipe")
    for field in fields:
        if field not in FIELDS:
            hint = nearest(str(field), FIELDS)
            raise ContentError(
                f"{path}: unknown field {field!r}, expected {', '.join(FIELDS)} {hint}".rstrip()
            )
    adapters = fields.get("adapters")
    if not isinstance(adapters, list) or not adapters or not all(isinstance(item, str) for item in adapters):
        raise ContentError(
            f"{path}: adapters: {show_value(adapters)}: expected a list like [rte=0.5, mnli=0.5]"
        )
    return MergeRecipe(
        [parse_reference_weight(item) for item in adapters], _options(fields, path), *_folders(fields, path)
    )


def recipe_text(plan: MergePlan) -> str:
    """Return the recipe that makes a merge again, as `read_recipe` takes it."""
    options = plan.options
    lines = [f"method: {options.method}"]
    lines += [f"rank: {options.rank}"] if options.rank is not None else []
    lines += [f"energy: {options.energy!r}"] if options.energy is not None else []
    lines += [f"dtype: {name}" for name, stored in DTYPES.items() if stored == options.dtype != "F32"]
    lines += [f"base: {json.dumps(str(plan.base.folder))}"] if plan.base else []
    return "\n".join(lines) + "\n" + adapters_text(plan.weighted)


def adapters_text(weighted: Iterable[WeightedAdapter]) -> str:
    """Return the YAML list of adapters with their weights, by which they are found again."""
    return "".join(["adapters:\n", *(f"  - {_item(item)}\n" for item in weighted)])


def _item(item: WeightedAdapter) -> str:
    """Return `NAME=WEIGHT`, or the folder's path where the name alone would not find it."""
    folder = item.adapter.folder
    found = (SAVES / item.adapter.name).resolve() == folder.resolve()
    path = str(folder) if "/" in str(folder) else f"./{folder}"
    text = f"{item.adapter.name if found else path}={item.weight!r}"
    return text if re.fullmatch(r"[\w./][\w./=+-]*", text) else json.dumps(text, ensure_ascii=False)


def _options(fields: dict[str, object], path: Path) -> MergeOptions:
    name, dtype = fields.get("method", "exact"), fields.get("dtype", "fp32")
    rank, energy = fields.get("rank"), fields.get("energy")
    if not isinstance(name, str) or name not in methods():
        raise ContentError(f"{path}: method: {show_value(name)}, expected {', '.join(methods())}")
    if not isinstance(dtype, str) or dtype not in DTYPES:
        raise ContentError(f"{path}: dtype: {show_value(dtype)}, expected {', '.join(DTYPES)}")
    if rank is not None and type(rank) is not int:
        raise ContentError(f"{path}: rank: {show_value(rank)}, expected a whole number")
    if isinstance(energy, bool) or not isinstance(energy, int | float | None):
        raise ContentError(f"{path}: energy: {show_value(energy)}, expected a share such as 0.99")
    return MergeOptions(name, rank, energy, DTYPES[dtype])


def _folders(fields: dict[str, object], path: Path) -> tuple[Path | None, Path | None]:
    for field in ("out", "base"):
        value = fields.get(field)
        if not isinstance(value, str | None) or (value and "\0" in value):
            raise ContentError(f"{path}: {field}: {show_value(value)}, expected a folder")
    out, base = fields.get("out"), fields.get("base")
    return Path(str(out)) if out else None, Path(str(base)) if base else None
