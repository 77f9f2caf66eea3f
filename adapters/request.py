"""What a user asks of `merge` and `fuse`: the words of a command line, or a merge recipe in a YAML file."""

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tuneyard.adapters.methods import methods
from tuneyard.adapters.weighted import parse_optional_weight, parse_reference_weight
from tuneyard.core.checkout import ROOT, bundled
from tuneyard.core.documents import read_mapping
from tuneyard.core.errors import RequestError
from tuneyard.core.files import read_object
from tuneyard.core.schema_errors import check_file

DTYPES = {"fp32": "F32", "fp16": "F16", "bf16": "BF16"}
SCHEMA = ROOT / "recipes/merge/schema.json"


@dataclass(frozen=True, slots=True)
class MergeRequest:
    """What a user asked to be merged; `rank` or `energy` is for methods that need one, `dtype` e.g. F32."""

    wanted: list[tuple[str, float]]
    out: Path
    base: Path | None = None
    method: str = "exact"
    rank: int | None = None
    energy: float | None = None
    dtype: str = "F32"
    force: bool = False
    same_base: bool = False


@dataclass(frozen=True, slots=True)
class FuseRequest:
    """What a user asked to be fused; `dtype` None keeps the base's, `max_shard` is in bytes."""

    wanted: list[tuple[str, float]]
    base: Path
    out: Path
    dtype: str | None = None
    base_as: str | None = None
    max_shard: int | None = None
    force: bool = False
    same_base: bool = False


def merge_request(texts: Sequence[str], options: Mapping[str, Any]) -> MergeRequest:
    """Return the request of a command line: weighted adapters, or a recipe, which options override."""
    recipe: dict[str, Any] = {"adapters": texts, "method": "exact", "dtype": "fp32"}
    if len(texts) == 1 and texts[0].endswith((".yaml", ".yml")):
        recipe |= _read_recipe(bundled(Path(texts[0])))
    elif any(text.endswith((".yaml", ".yml")) for text in texts):
        raise RequestError("a recipe is given alone: it names its adapters itself")
    given = {name: value for name, value in options.items() if value is not None}
    if {"rank", "energy"} & given.keys() or given.get("method", recipe["method"]) != recipe["method"]:
        recipe |= {"rank": None, "energy": None}
    chosen = recipe | given
    if not chosen.get("out"):
        raise RequestError("no --out: the folder of the merged adapter")
    wanted = [parse_reference_weight(text) for text in chosen.pop("adapters")]
    out, base = Path(chosen.pop("out")), chosen.pop("base", None)
    dtype = DTYPES[chosen.pop("dtype")]
    return MergeRequest(wanted, out, Path(base) if base else None, dtype=dtype, **chosen)


def fuse_request(texts: Sequence[str], options: Mapping[str, Any]) -> FuseRequest:
    """Return the request of a command line; `options` are the command's: those of `FuseRequest` by name."""
    dtype, size = options["dtype"], options["max_shard"]
    fields = {**options, "dtype": DTYPES.get(dtype), "max_shard": parse_size(size) if size else None}
    return FuseRequest([parse_optional_weight(text) for text in texts], **fields)


def parse_size(text: str) -> int:
    """Return bytes of a size such as `500MB` or `5GB` (powers of ten)."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*(KB|MB|GB)", text.strip(), re.IGNORECASE)
    size = float(match[1]) * {"KB": 10**3, "MB": 10**6, "GB": 10**9}[match[2].upper()] if match else 0
    if not 1 <= size < math.inf:
        raise RequestError(f"{text!r}: expected a size such as 500MB or 5GB")
    return int(size)


def _read_recipe(path: Path) -> dict[str, Any]:
    """Read a merge recipe: the options of `merge` by name, and the list `adapters`."""
    fields = read_mapping(path, "merge recipe")
    schema: dict[str, Any] = read_object(SCHEMA)
    if "method" in fields:  # the file, which editors read, does not know plug-ins
        schema["properties"]["method"] = {"enum": list(methods())}
    check_file(path, schema, fields)
    return fields
