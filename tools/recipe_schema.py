"""python -m tools.recipe_schema: write recipes/schema.json, the JSON Schema of a recipe.

Keys, types and choices are LLaMA-Factory's (12 s to import), bounds ours. Run it after a change of
LLaMA-Factory's version or of the bounds; a test runs it with `--check`.
"""

import enum
import json
import sys
import types
import typing
from typing import Any

from tools.written import write_or_check
from tuneyard.core.files import versions
from tuneyard.core.llamafactory.arguments import training_arguments
from tuneyard.core.llamafactory.templates import all_templates, tool_formats
from tuneyard.recipes.recipe.schema import LISTS, SCHEMA

TYPES: dict[object, str] = {
    bool: "boolean", int: "integer", float: "number", str: "string", dict: "object", list: "array",
    type(None): "null",
}  # fmt: skip
BOUNDS: tuple[tuple[dict[str, Any], str], ...] = (
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
    # LLaMA-Factory takes 1.5 as one row, and datasets refuses 1.0
    ({"not": {"minimum": 1, "not": {"type": "integer"}}}, "val_size"),
    ({"description": "a share below 1, or a whole number of rows"}, "val_size"),
    ({"minimum": 0, "maximum": 2**32 - 1}, "seed"),
)


def schema_text() -> str:
    """Schema of the installed LLaMA-Factory's recipes as JSON, one line a key. This imports LLaMA-Factory."""
    from transformers.integrations import INTEGRATION_TO_CALLBACK

    keys: dict[str, dict[str, Any]] = {}
    for arguments in training_arguments():
        hints = typing.get_type_hints(arguments)
        fields = arguments.__dataclass_fields__.values()
        keys |= {field.name: _schema_of(hints[field.name]) for field in fields if field.init}
    keys["template"] = {"enum": [*sorted(all_templates()), None]}
    keys["tool_format"] = {"enum": [*tool_formats(), None]}
    trackers = sorted({"all", "none", *INTEGRATION_TO_CALLBACK})
    items = {"type": "array", "items": {"enum": trackers}}
    keys["resume_from_checkpoint"]["type"] = [
        "boolean",
        "null",
        "string",
    ]  # true: the newest, by transformers
    keys["fsdp"]["type"] = ["array", "boolean", "null", "string"]  # true: full_shard, by transformers
    either = [{"type": ["null", "string"], "enum": [*trackers, None]}, items]
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
        return {"enum": [*choices, None] if "null" in schema["type"] else choices}
    return schema


if __name__ == "__main__":
    sys.exit(write_or_check("tools.recipe_schema", {SCHEMA: schema_text()}))
