"""python -m recipes.schema: write recipes/schema.json, the JSON Schema of a recipe, for editors and `check`.

Keys, types and choices are LLaMA-Factory's (12 s to import), bounds ours; test_recipes_all.py keeps it so.
"""

import enum
import json
import types
import typing
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from core.errors import Problem, nearest, show_value
from core.files import read_object, versions, write_text
from recipes.recipe import LARGEST, Recipe, is_number

SCHEMA = Path(__file__).with_name("schema.json")
TYPES: dict[object, str] = {
    bool: "boolean", int: "integer", float: "number", str: "string", dict: "object", list: "array",
    type(None): "null",
}  # fmt: skip
WORDS = {
    "boolean": "true or false", "integer": "a whole number", "number": "a number", "string": "a text",
    "object": "a mapping", "array": "a list",
}  # fmt: skip
LISTS = (  # LLaMA-Factory splits these texts at commas and takes lists as well
    "adapter_name_or_path", "additional_target", "apollo_target", "dataset", "eval_dataset",
    "freeze_extra_modules", "freeze_trainable_modules", "galore_target", "interleave_probs", "lora_target",
    "oft_target",
)  # fmt: skip
BOUNDS: tuple[tuple[dict[str, int], str], ...] = (
    ({"exclusiveMinimum": 0}, "learning_rate num_train_epochs ddp_timeout save_steps logging_steps"),
    ({"minimum": 1}, "per_device_train_batch_size per_device_eval_batch_size gradient_accumulation_steps"),
    (
        {"minimum": 1},
        "cutoff_len lora_rank lora_alpha save_total_limit max_samples preprocessing_num_workers",
    ),
    ({"minimum": 0, "maximum": 1}, "lora_dropout warmup_ratio adam_beta1 adam_beta2 label_smoothing_factor"),
    ({"minimum": 0}, "eval_steps weight_decay warmup_steps max_grad_norm val_size adam_epsilon"),
    ({"minimum": -1}, "max_steps"),
    ({"minimum": 0, "maximum": 2**32 - 1}, "seed"),
)
CODES = {"type": "E302", "enum": "E303"}  # by the keyword that a value fails; else E313


@dataclass(frozen=True, slots=True)
class Refusal:
    """Where a value fails its schema (`rules.0.weight`, "" for itself) and by which keyword; the fix."""

    place: str
    keyword: str
    message: str
    hint: str = ""


@cache
def known_keys() -> dict[str, dict[str, Any]]:
    """Return the schema of each key that LLaMA-Factory takes."""
    keys: dict[str, dict[str, Any]] = read_object(SCHEMA)["properties"]  # type: ignore[assignment]  # ours
    return keys


def setting_problems(recipe: Recipe) -> Iterator[Problem]:
    """Yield the keys that LLaMA-Factory does not know, and the values that its schema refuses."""
    for key, value in recipe.settings.items():
        if key not in known_keys():
            hint = nearest(key, known_keys()) or "LLaMA-Factory has no such setting"
            yield recipe.problem("E301", key, "unknown key", hint)
        elif value is not None and (wrong := refusal(known_keys()[key], value)):
            code = CODES.get(wrong.keyword, "E313")
            named = key == "template" and code == "E303"
            yield recipe.problem("E305" if named else code, key, wrong.message, wrong.hint)


def refusal(schema: Mapping[str, Any], value: object) -> Refusal | None:
    """Return the first thing that a JSON Schema refuses in a value, None where it refuses nothing."""
    error = next(_validator()(schema).iter_errors(value), None)
    if error is None:
        return None
    if error.validator == "anyOf":
        error = max(error.context, key=lambda one: len(one.path))  # of an item where a list is given
    found, schema, keyword, hint = error.instance, error.schema, str(error.validator), ""
    expected = str(schema.get("description"))
    if isinstance(found, int | float) and not isinstance(found, bool) and not is_number(found):
        keyword, expected = "maximum", f"a number of at most {LARGEST:,.0f}"
    elif keyword == "enum":
        known = [str(choice) for choice in schema["enum"] if choice is not None]
        expected = f"one of {', '.join(known[:12])}{', …' * (len(known) > 12)}"
        hint = nearest(str(found), known)
    elif keyword == "type":
        expected = " or ".join(WORDS[kind] for kind in _types(schema) if kind != "null")
        if isinstance(found, bool) and "string" in _types(schema):
            hint = (
                "YAML reads a bare yes or no as true or false: write it in quotes (in a shell 'KEY=\"no\"')"
            )
    elif keyword.endswith("imum"):
        start = f"above {schema['exclusiveMinimum']}" if "exclusiveMinimum" in schema else "from {minimum}"
        expected = f"a number {start}{' to {maximum}' if 'maximum' in schema else ''}".format(**schema)
    place = ".".join(map(str, error.absolute_path))
    return Refusal(place, keyword, f"found {show_value(found)}, expected {expected}", hint)


@cache
def _validator() -> Any:
    """Return a validator to which 8.0 is no integer, and NaN, infinity and what is too large no number."""
    from jsonschema import Draft202012Validator as Validator
    from jsonschema.validators import extend

    kinds = {"integer": lambda _, one: is_number(one) and isinstance(one, int)}
    checker = Validator.TYPE_CHECKER.redefine_many({**kinds, "number": lambda _, one: is_number(one)})
    return extend(Validator, type_checker=checker)  # type: ignore[no-untyped-call]  # its stubs


def _types(schema: Mapping[str, Any]) -> list[str]:
    kinds = schema["type"]
    return kinds if isinstance(kinds, list) else [kinds]


def schema_text() -> str:
    """Return the schema of the installed LLaMA-Factory's recipes (imports it), with a line for each key."""
    from llamafactory.data.template import TEMPLATES
    from llamafactory.hparams import parser
    from transformers.integrations import INTEGRATION_TO_CALLBACK

    keys: dict[str, dict[str, Any]] = {}
    for arguments in parser._TRAIN_ARGS:
        hints = typing.get_type_hints(arguments)
        fields = arguments.__dataclass_fields__.values()
        keys |= {field.name: _schema_of(hints[field.name]) for field in fields if field.init}
    keys["template"]["enum"] = [*sorted(TEMPLATES), None]
    trackers = sorted({"all", "none", *INTEGRATION_TO_CALLBACK})
    items = {"type": "array", "items": {"enum": trackers}}
    keys["report_to"] = {"anyOf": [{"enum": [*trackers, None]}, items]}
    for key in LISTS:
        keys[key]["type"] = sorted({*_types(keys[key]), "array"})
    for bounds, names in BOUNDS:
        for key in names.split():
            keys[key] |= bounds
    made = versions("llamafactory", "transformers")
    head = {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": f"A recipe for LLaMA-Factory {made['llamafactory']}, transformers {made['transformers']}",
        "type": "object",
        "additionalProperties": False,
    }
    lines = [f"    {json.dumps(key)}: {json.dumps(about)}" for key, about in sorted(keys.items())]
    start = json.dumps(head, indent=2)[:-2]
    return f'{start},\n  "properties": {{\n' + ",\n".join(lines) + "\n  }\n}\n"


def _schema_of(hint: object) -> dict[str, Any]:
    """Return the schema of a type annotation; {} where it takes objects that no YAML file holds."""
    union = typing.get_origin(hint) in (typing.Union, types.UnionType)
    kinds: set[str] = set()
    choices: list[object] = []
    for part in typing.get_args(hint) if union else [hint]:
        values = typing.get_args(part) if typing.get_origin(part) is typing.Literal else ()
        if isinstance(part, type) and issubclass(part, enum.Enum):
            values = tuple(member.value for member in part)
        kinds |= {TYPES[type(value)] for value in values}
        kinds |= set() if values else {TYPES.get(typing.get_origin(part) or part, "other")}
        choices += values
    if "other" in kinds:
        return {}
    found: dict[str, Any] = {"type": sorted(kinds) if len(kinds) > 1 else kinds.pop()}
    if choices and found["type"] in ("string", ["null", "string"]):
        found["enum"] = [*choices, None] if "null" in found["type"] else choices
    return found


if __name__ == "__main__":
    write_text(SCHEMA, schema_text())
