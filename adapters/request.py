"""The requests of `merge` and `fuse`, from a command line or from a merge recipe (YAML)."""

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tuneyard.adapters.methods import methods, parameters_by_name
from tuneyard.adapters.weighted import parse_optional_weight, parse_reference_weight
from tuneyard.core.documents import read_mapping
from tuneyard.core.documents.schema_errors import check_file
from tuneyard.core.errors import RequestError
from tuneyard.core.files import read_object
from tuneyard.core.installation.checkout import ROOT, bundled

DTYPES = {"fp32": "F32", "fp16": "F16", "bf16": "BF16"}
SCHEMA = ROOT / "recipes/merge/schema.json"


@dataclass(frozen=True, slots=True)
class MergeRequest:
    """A `merge` command: `parameters` of the method are not checked yet; `dtype` is e.g. F32."""

    adapters: list[tuple[str, float]]
    out: Path
    base: Path | None = None
    method: str = "exact"
    parameters: Mapping[str, object] = field(default_factory=dict)
    dtype: str = "F32"
    force: bool = False
    same_base: bool = False


@dataclass(frozen=True, slots=True)
class FuseRequest:
    """A `fuse` command: `dtype` None keeps the base's dtypes, `max_shard` is in bytes."""

    adapters: list[tuple[str, float]]
    base: Path
    out: Path
    dtype: str | None = None
    base_as: str | None = None
    max_shard: int | None = None
    force: bool = False
    same_base: bool = False


def merge_request(texts: Sequence[str], options: Mapping[str, Any]) -> MergeRequest:
    """Read a command line: weighted adapters, or a recipe. Options override the recipe.

    A method or a parameter among the options replaces the recipe's method parameters.
    """
    fields: dict[str, Any] = {"adapters": texts, "method": "exact", "dtype": "fp32"}
    is_recipe = [text.endswith((".yaml", ".yml")) for text in texts]
    if is_recipe == [True]:
        fields |= _read_recipe(bundled(Path(texts[0])))
    elif any(is_recipe):
        raise RequestError("a recipe names its adapters itself: give it alone")
    declared = parameters_by_name()
    recipe_parameters = {name: fields.pop(name) for name in declared if name in fields}
    recipe_method = fields["method"]
    option_parameters: dict[str, object] = {}
    for name, value in options.items():
        if value is None:
            continue
        if name in declared:
            option_parameters[name] = value
        else:
            fields[name] = value
    parameters = recipe_parameters
    if option_parameters or fields["method"] != recipe_method:
        parameters = option_parameters
    if not fields.get("out"):
        raise RequestError("no --out: the folder of the merged adapter, as in --out saves/merged")
    base = fields.pop("base", None)
    return MergeRequest(
        [parse_reference_weight(text) for text in fields.pop("adapters")],
        out=Path(fields.pop("out")),
        base=None if base is None else Path(base),
        parameters={name: value for name, value in parameters.items() if value is not None},
        dtype=DTYPES[fields.pop("dtype")],
        **fields,
    )


def fuse_request(texts: Sequence[str], options: Mapping[str, Any]) -> FuseRequest:
    """Read a command line. `options` have the names of `FuseRequest`'s fields."""
    fields = dict(options)
    fields["dtype"] = DTYPES.get(options["dtype"])
    if options["max_shard"]:
        fields["max_shard"] = parse_size(options["max_shard"])
    return FuseRequest([parse_optional_weight(text) for text in texts], **fields)


def parse_size(text: str) -> int:
    """Bytes of a size such as `500MB` or `5GB` (powers of ten)."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*(KB|MB|GB)", text.strip(), re.IGNORECASE)
    size = 0.0
    if match:
        size = float(match[1]) * {"KB": 10**3, "MB": 10**6, "GB": 10**9}[match[2].upper()]
    if not 1 <= size < math.inf:
        raise RequestError(f"{text!r}: expected a size such as 500MB or 5GB")
    return int(size)


def _read_recipe(path: Path) -> dict[str, Any]:
    """Read a merge recipe: the options of `merge` by name, and the list `adapters`."""
    fields = read_mapping(path, "merge recipe")
    schema: dict[str, Any] = read_object(SCHEMA)
    # Editors read the file in recipes/merge, which has neither plug-ins nor the parameters of methods.
    schema["additionalProperties"] = False
    for name, declarations in parameters_by_name().items():
        schemas = [parameter.schema for _, parameter in declarations]
        for each in schemas:
            each["type"] = [each["type"], "null"]
        schema["properties"][name] = {"anyOf": schemas} if len(schemas) > 1 else schemas[0]
    if "method" in fields:
        schema["properties"]["method"] = {"enum": list(methods())}
    check_file(path, schema, fields)
    return fields
