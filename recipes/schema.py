"""python -m recipes.schema: write recipes/schema.json, the JSON Schema of a recipe, for editors and `check`.

Keys, types and choices are those of LLaMA-Factory's arguments, which take 12 s to import. The bounds are
ours: LLaMA-Factory accepts a learning rate of -1. A test (test_recipes_all.py) holds the file current.
"""

import enum
import json
import typing
from collections.abc import Iterator, Mapping
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
        "cutoff_len lora_rank lora_alpha save_total_limit preprocessing_num_workers max_samples",
    ),
    ({"minimum": 0, "maximum": 1}, "lora_dropout warmup_ratio adam_beta1 adam_beta2 label_smoothing_factor"),
    ({"minimum": 0}, "eval_steps weight_decay warmup_steps max_grad_norm val_size adam_epsilon"),
    ({"minimum": -1}, "max_steps"),
    ({"minimum": 0, "maximum": 2**32 - 1}, "seed"),
)
CODES = {"type": "E302", "enum": "E303"}  # by the keyword that a value fails; else E313


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
        elif value is not None and (found := refusal(known_keys()[key], value)):
            keyword, expected, hint = found
            code = "E305" if key == "template" and keyword == "enum" else CODES.get(keyword, "E313")
            yield recipe.problem(code, key, f"found {show_value(value)}, expected {expected}", hint)


def refusal(schema: Mapping[str, Any], value: object) -> tuple[str, str, str] | None:
    """Return the keyword of a key's schema that a value fails, what is expected, and the fix; else None."""
    from jsonschema import Draft4Validator, Draft202012Validator
    from jsonschema.validators import extend

    if isinstance(value, float | int) and not is_number(value) and not isinstance(value, bool):
        return "maximum", f"a number of at most {LARGEST:,.0f}", ""  # or NaN, which passes every bound
    strict = Draft4Validator.TYPE_CHECKER  # to which 8.0 is no integer
    validator = extend(Draft202012Validator, type_checker=strict)  # type: ignore[no-untyped-call]  # its stubs
    error = next(validator(schema).iter_errors(value), None)
    if error is None:
        return None
    error = max(error.context or [error], key=lambda one: len(one.path))  # of an item where a list is given
    known = [choice for choice in error.schema.get("enum", ()) if choice is not None]
    if error.validator == "enum":
        shown = ", ".join(map(str, known[:12])) + (", …" if len(known) > 12 else "")
        return "enum", f"one of {shown}", nearest(str(error.instance), map(str, known))
    if error.validator == "type":
        wanted = " or ".join(WORDS[kind] for kind in _types(schema) if kind != "null")
        no = value is False and "no" in known
        return "type", wanted, 'YAML reads a bare no as false: write "no" in quotes' if no else ""
    above, low, high = (schema.get(bound) for bound in ("exclusiveMinimum", "minimum", "maximum"))
    start = f"from {low}" if above is None else f"above {above}"
    return str(error.validator), f"a number {start}" + ("" if high is None else f" to {high}"), ""


def _types(schema: Mapping[str, Any]) -> list[str]:
    types = schema["type"]
    return types if isinstance(types, list) else [types]


def schema() -> dict[str, Any]:
    """Return the schema of the installed LLaMA-Factory's recipes (imports it)."""
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
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": f"A recipe for LLaMA-Factory {made['llamafactory']}, transformers {made['transformers']}",
        "type": "object",
        "additionalProperties": False,
        "properties": dict(sorted(keys.items())),
    }


def _schema_of(hint: object) -> dict[str, Any]:
    """Return the schema of a type annotation; {} where it takes objects that no YAML file holds."""
    parts = [_kind(part) for part in _plain(hint)]
    types = sorted({kind for kind, _ in parts})
    choices = [choice for _, some in parts for choice in some]
    if "other" in types:
        return {}
    found: dict[str, Any] = {"type": types[0] if len(types) == 1 else types}
    if choices and set(types) <= {"string", "null"}:
        found["enum"] = [*choices, None] if "null" in types else choices
    return found


def _plain(hint: object) -> Iterator[object]:
    """Yield the parts of a type annotation that are no unions; of literals each for itself."""
    origin, parts = typing.get_origin(hint), typing.get_args(hint)
    if origin is typing.Literal:
        yield from (typing.Literal[part] for part in parts)
    elif origin in (None, list, dict):
        yield hint
    else:
        for part in parts:
            yield from _plain(part)


def _kind(hint: object) -> tuple[str, list[object]]:
    """Return the JSON type of a part of an annotation ("other" for none), and the values it is limited to."""
    if typing.get_origin(hint) is typing.Literal:
        (choice,) = typing.get_args(hint)
        return TYPES[type(choice)], [choice]
    if isinstance(hint, type) and issubclass(hint, enum.Enum):
        return "string", [member.value for member in hint]
    return TYPES.get(typing.get_origin(hint) or hint, "other"), []


def schema_text() -> str:
    """Return the schema as the file has it: a line for each key."""
    head, lines = schema(), []
    for key, about in head.pop("properties").items():
        lines.append(f"    {json.dumps(key)}: {json.dumps(about)}")
    start = json.dumps(head, indent=2)[:-2]
    return f'{start},\n  "properties": {{\n' + ",\n".join(lines) + "\n  }\n}\n"


if __name__ == "__main__":
    write_text(SCHEMA, schema_text())
