"""python -m recipes.schema: write recipes/schema.json, the JSON Schema of a recipe, for editors and `check`.

Keys, types and choices are LLaMA-Factory's (12 s to import), bounds ours; test_recipes_all.py keeps it so.
"""

import enum
import json
import types
import typing
from collections.abc import Iterable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

from tuneyard.core.documents.schema_errors import violations
from tuneyard.core.errors import Problem, nearest
from tuneyard.core.files import read_object, versions, write_text
from tuneyard.recipes.recipe import Recipe

SCHEMA = Path(__file__).with_name("schema.json")
TYPES: dict[object, str] = {
    bool: "boolean", int: "integer", float: "number", str: "string", dict: "object", list: "array",
    type(None): "null",
}  # fmt: skip
LISTS = (  # LLaMA-Factory splits these texts at commas and takes lists as well
    "adapter_name_or_path", "additional_target", "apollo_target", "dataset", "eval_dataset",
    "freeze_extra_modules", "freeze_trainable_modules", "galore_target", "interleave_probs", "lora_target",
    "oft_target",
)  # fmt: skip
BOUNDS: tuple[tuple[dict[str, float], str], ...] = (
    ({"exclusiveMinimum": 0}, "learning_rate num_train_epochs ddp_timeout save_steps logging_steps"),
    ({"minimum": 1}, "per_device_train_batch_size per_device_eval_batch_size gradient_accumulation_steps"),
    (
        {"minimum": 1},
        "cutoff_len lora_rank lora_alpha save_total_limit max_samples preprocessing_num_workers",
    ),
    ({"minimum": 0, "maximum": 1}, "warmup_ratio adam_beta1 adam_beta2 label_smoothing_factor"),
    # from here on nothing gets through a LoRA layer, or the rejected answers are preferred
    ({"minimum": 0, "exclusiveMaximum": 1}, "lora_dropout"),
    ({"minimum": 0, "exclusiveMaximum": 0.5}, "dpo_label_smoothing"),
    ({"exclusiveMinimum": 0}, "pref_beta kto_chosen_weight kto_rejected_weight"),
    ({"minimum": 0}, "eval_steps weight_decay warmup_steps max_grad_norm val_size adam_epsilon"),
    ({"minimum": -1}, "max_steps"),
    ({"minimum": 0, "maximum": 2**32 - 1}, "seed"),
)
OTHER_NAMES = {
    "batch_size": "per_device_train_batch_size", "train_batch_size": "per_device_train_batch_size",
    "micro_batch_size": "per_device_train_batch_size", "per_device_batch_size": "per_device_train_batch_size",
    "gradient_accumulation": "gradient_accumulation_steps",
    "lr": "learning_rate", "epochs": "num_train_epochs", "num_epochs": "num_train_epochs",
    "max_seq_length": "cutoff_len", "max_seq_len": "cutoff_len", "sequence_len": "cutoff_len",
    "base_model": "model_name_or_path", "model": "model_name_or_path", "target_modules": "lora_target",
    "adapter": "finetuning_type", "load_in_4bit": "quantization_bit", "load_in_8bit": "quantization_bit",
    "flash_attention_2": "fa2", "flash_attention_3": "fa3", "eager": "disabled",
}  # fmt: skip
"""Keys and values of TRL, axolotl and transformers, and what LLaMA-Factory calls the same."""
CODES = {"type": "E302", "enum": "E303", "anyOf": "E303"}  # by the keyword that a value fails; else E313


@cache
def known_keys() -> dict[str, dict[str, Any]]:
    """Schema of each key that LLaMA-Factory takes."""
    keys: dict[str, dict[str, Any]] = read_object(SCHEMA)["properties"]  # type: ignore[assignment]  # ours
    return keys


def setting_problems(recipe: Recipe) -> Iterator[Problem]:
    """Yield the keys that LLaMA-Factory does not know, and the values that its schema refuses."""
    for key, value in recipe.settings.items():
        if key not in known_keys():
            hint = meant(key, known_keys()) or "LLaMA-Factory has no such setting"
            yield recipe.setting_problem("E301", key, "unknown key", hint)
            continue
        if value is None:
            continue
        violation = next(violations(known_keys()[key], value, exact=True), None)
        if violation is not None:
            code, hint = CODES.get(violation.keyword, "E313"), violation.hint
            if violation.keyword == "enum":
                if key == "template":
                    code = "E305"
                if value in OTHER_NAMES:
                    hint = meant(str(value), [OTHER_NAMES[str(value)]])
            yield recipe.setting_problem(code, key, violation.message, hint)


def meant(name: str, choices: Iterable[str]) -> str:
    """Suggest the choice that another trainer calls `name`, or the nearest one; "" if there is neither."""
    choices = list(choices)
    other_name = OTHER_NAMES.get(name, name)
    if other_name in choices:
        return f'did you mean "{other_name}"?'
    return nearest(name, choices)


def schema_text() -> str:
    """Schema of the installed LLaMA-Factory's recipes as JSON, one line a key. This imports LLaMA-Factory."""
    from llamafactory.data.template import TEMPLATES
    from llamafactory.data.tool_utils import TOOLS
    from llamafactory.hparams import parser
    from transformers.integrations import INTEGRATION_TO_CALLBACK

    keys: dict[str, dict[str, Any]] = {}
    for arguments in parser._TRAIN_ARGS:
        hints = typing.get_type_hints(arguments)
        fields = arguments.__dataclass_fields__.values()
        keys |= {field.name: _schema_of(hints[field.name]) for field in fields if field.init}
    keys["template"]["enum"] = [*sorted(TEMPLATES), None]
    keys["tool_format"]["enum"] = [*sorted(TOOLS), None]
    trackers = sorted({"all", "none", *INTEGRATION_TO_CALLBACK})
    items = {"type": "array", "items": {"enum": trackers}}
    either = [{"enum": [*trackers, None]}, items]
    keys["report_to"] = {"description": "a tracker, or a list of trackers", "anyOf": either}
    for key in LISTS:
        kinds = keys[key]["type"]
        keys[key]["type"] = sorted({"array", *([kinds] if isinstance(kinds, str) else kinds)})
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
    """Schema of a type annotation. {} if it takes objects that no YAML file can hold."""
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
    schema: dict[str, Any] = {"type": sorted(kinds) if len(kinds) > 1 else kinds.pop()}
    if choices and schema["type"] in ("string", ["null", "string"]):
        schema["enum"] = [*choices, None] if "null" in schema["type"] else choices
    return schema


if __name__ == "__main__":
    write_text(SCHEMA, schema_text())
