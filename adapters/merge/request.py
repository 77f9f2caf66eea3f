"""The request of `adapter merge`: weighted adapters and options, from the command line or a YAML file."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tuneyard.adapters.methods import methods, parameters_by_name
from tuneyard.adapters.model.weighted import parse_merged
from tuneyard.adapters.model.weights import Weight
from tuneyard.core.documents import read_mapping
from tuneyard.core.documents.schema_errors import check_file
from tuneyard.core.errors import ContentError, RequestError
from tuneyard.core.files import bundled, read_object
from tuneyard.core.installation.checkout import ROOT
from tuneyard.core.language.message import _
from tuneyard.core.text.quoting import shell
from tuneyard.core.weights.dtypes import DTYPES

SCHEMA = ROOT / "recipes/merge/schema.json"


@dataclass(frozen=True, slots=True)
class MergeRequest:
    """A `merge` command: `parameters` of the method are not checked yet; `dtype` is e.g. F32."""

    adapters: Sequence[tuple[str, Weight]]
    out: Path
    base: Path | None = None
    method: str = "exact"
    parameters: Mapping[str, object] = field(default_factory=dict)
    dtype: str = "F32"
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
        raise RequestError(_("a recipe names its adapters itself: give it alone"))
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
        raise RequestError(_("no --out: the folder of the merged adapter, as in --out saves/merged"))
    base = fields.pop("base", None)
    return MergeRequest(
        [parse_merged(text) for text in fields.pop("adapters")],
        out=Path(os.path.expanduser(fields.pop("out"))),  # noqa: PTH111  # ~ of a recipe, which no shell reads
        base=Path(base) if base else None,
        parameters={name: value for name, value in parameters.items() if value is not None},
        dtype=DTYPES[fields.pop("dtype")].stored,
        **fields,
    )


def _read_recipe(path: Path) -> dict[str, Any]:
    """Read a merge recipe: the options of `merge` by name, and the list `adapters`."""
    fields = read_mapping(path, _("merge recipe"))
    if "model_name_or_path" in fields:
        raise ContentError(
            _(
                "{path} is a training recipe, expected a merge recipe. `tuneyard recipe train "
                "{recipe}` trains an adapter into its output_dir; merge that, as in saves/NAME=0.5",
                path=path,
                recipe=shell(path),
            )
        )
    schema: dict[str, Any] = read_object(SCHEMA)
    # Editors read the file in recipes/merge, which has neither plug-ins nor the parameters of methods.
    schema["additionalProperties"] = False
    for name, declarations in parameters_by_name().items():
        schemas: list[dict[str, Any]] = []
        for _unused, parameter in declarations:
            with_null = {**parameter.schema, "type": [parameter.schema["type"], "null"]}
            if with_null not in schemas:
                schemas.append(with_null)
        schema["properties"][name] = {"anyOf": schemas} if len(schemas) > 1 else schemas[0]
    if "method" in fields:
        schema["properties"]["method"] = {"enum": list(methods())}
    check_file(path, schema, fields)
    return fields
