"""Merge recipes: what the command line of `merge` says, in a YAML file."""

import json
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from adapters.merge import MergePlan
from adapters.methods import methods
from adapters.store import SAVES
from adapters.weighted import WeightedAdapter
from core.documents import read_mapping
from core.errors import ContentError, nearest, show_value

DTYPES = {"fp32": "F32", "fp16": "F16", "bf16": "BF16"}
FOLDER = "a folder"
EXPECTED = {
    "adapters": "a list like [rte=0.5, mnli=0.5]", "base": FOLDER, "dtype": ", ".join(DTYPES),
    "energy": "a share such as 0.99", "method": "", "out": FOLDER, "rank": "a whole number",
}  # fmt: skip


def read_recipe(path: Path) -> dict[str, Any]:
    """Read a merge recipe: the options of `merge` by name, and the list `adapters`.

    `ContentError` names the field that is wrong.
    """
    fields = read_mapping(path, "merge recipe")
    for name, value in (fields | {"adapters": fields.get("adapters")}).items():
        if name not in EXPECTED:
            hint = nearest(name, EXPECTED)
            raise ContentError(
                f"{path}: unknown field {name!r}, expected {', '.join(EXPECTED)} {hint}".rstrip()
            )
        if not _is_right(name, value):
            expected = EXPECTED[name] or ", ".join(methods())
            raise ContentError(f"{path}: {name}: {show_value(value)}, expected {expected}")
    return fields


def _is_right(name: str, value: object) -> bool:
    if name == "adapters":
        return isinstance(value, list) and bool(value) and all(isinstance(item, str) for item in value)
    if name in ("method", "dtype"):
        return isinstance(value, str) and value in (methods() if name == "method" else DTYPES)
    if name == "rank":
        return value is None or type(value) is int
    if name == "energy":
        return not isinstance(value, bool) and isinstance(value, int | float | None)
    return value is None or (isinstance(value, str) and "\0" not in value)


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
