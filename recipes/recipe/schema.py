"""Settings that LLaMA-Factory does not know, and values that recipes/schema.json refuses.

`python -m tools.recipe_schema` writes the schema, which editors read, too.
"""

from collections.abc import Collection, Iterator
from functools import cache
from typing import Any

from tuneyard.core.datasets import KEYS
from tuneyard.core.documents.schema_errors import violations
from tuneyard.core.errors import Problem, nearest_name
from tuneyard.core.errors.problem_codes import ProblemCode
from tuneyard.core.files import read_object
from tuneyard.core.installation.checkout import ROOT
from tuneyard.core.language.message import _
from tuneyard.core.records import ALPACA, EXTRAS, SHAREGPT, SHAREGPT_TAGS
from tuneyard.recipes.recipe import Recipe

UNKNOWN_KEY = ProblemCode(
    "E301", _("a key that LLaMA-Factory does not know"), _("Correct the spelling, as the message suggests.")
)
WRONG_TYPE = ProblemCode(
    "E302", _("a setting of the wrong type"), _("Write a value of the type in the message.")
)
UNKNOWN_CHOICE = ProblemCode(
    "E303", _("a value that is none of the choices"), _("Take one of the listed values.")
)
UNKNOWN_TEMPLATE = ProblemCode(
    "E305",
    _("a template that LLaMA-Factory does not have"),
    _("Take the suggested template, or leave `template` out."),
)
IMPOSSIBLE_NUMBER = ProblemCode(
    "E313", _("a number that the setting cannot have"), _("Take a number within the bounds.")
)


SCHEMA = ROOT / "recipes/schema.json"
LISTS = (  # LLaMA-Factory splits these texts at commas and takes lists as well
    "adapter_name_or_path", "additional_target", "apollo_target", "dataset", "eval_dataset",
    "freeze_extra_modules", "freeze_trainable_modules", "galore_target", "interleave_probs", "lora_target",
    "oft_target",
)  # fmt: skip
SHORT = {"rank": "lora_rank", "alpha": "lora_alpha", "lr": "learning_rate", "epochs": "num_train_epochs"}
"""Names that `recipe sweep` takes as well."""
OTHER_NAMES = {
    **SHORT,
    "batch_size": "per_device_train_batch_size", "train_batch_size": "per_device_train_batch_size",
    "micro_batch_size": "per_device_train_batch_size", "per_device_batch_size": "per_device_train_batch_size",
    "gradient_accumulation": "gradient_accumulation_steps",
    "num_epochs": "num_train_epochs",
    "max_seq_length": "cutoff_len", "max_seq_len": "cutoff_len", "sequence_len": "cutoff_len",
    "base_model": "model_name_or_path", "model": "model_name_or_path", "target_modules": "lora_target",
    "adapter": "finetuning_type", "load_in_4bit": "quantization_bit", "load_in_8bit": "quantization_bit",
    "flash_attention_2": "fa2", "flash_attention_3": "fa3", "eager": "disabled",
}  # fmt: skip
"""Keys and values of TRL, axolotl and transformers, and what LLaMA-Factory calls the same."""
KEYS_OF_ENTRIES = {*KEYS, *ALPACA, *SHAREGPT, *EXTRAS, *SHAREGPT_TAGS}
"""What an entry of dataset_info.json may have, in `columns` and `tags`, too."""
CODES = {
    "type": WRONG_TYPE,
    "enum": UNKNOWN_CHOICE,
    "anyOf": UNKNOWN_CHOICE,
}  # by the keyword that a value fails; else E313


@cache
def known_keys() -> dict[str, dict[str, Any]]:
    """Schema of each key that LLaMA-Factory takes."""
    keys: dict[str, dict[str, Any]] = read_object(SCHEMA)["properties"]  # type: ignore[assignment]  # ours
    return keys


def setting_problems(recipe: Recipe) -> Iterator[Problem]:
    """Yield the keys that LLaMA-Factory does not know, and the values that its schema refuses."""
    for key in recipe.secrets:
        if key not in known_keys():
            yield _unknown(recipe, key)
    for key, value in recipe.settings.items():
        if key not in known_keys():
            yield _unknown(recipe, key)
            continue
        if value is None:
            continue
        violation = next(violations(known_keys()[key], value, exact=True), None)
        if violation is not None:
            code, hint = CODES.get(violation.keyword, IMPOSSIBLE_NUMBER), violation.hint
            if code == WRONG_TYPE and {",", "%"} & {*str(value)}:
                hint = _("write a number such as 1.5e-4; 10% is 0.1")
            if violation.keyword == "enum":
                if key == "template":
                    code = UNKNOWN_TEMPLATE
                if str(value) in OTHER_NAMES:
                    hint = meant(str(value), [OTHER_NAMES[str(value)]])
            yield recipe.setting_problem(code, key, violation.message, hint)


def _unknown(recipe: Recipe, key: str) -> Problem:
    hint = meant(key, known_keys()) or _("LLaMA-Factory has no such setting")
    if key in KEYS_OF_ENTRIES:
        hint = _("a key of a dataset's entry in dataset_info.json: write it there")
    return recipe.setting_problem(UNKNOWN_KEY, key, _("unknown key"), hint)


def meant(name: str, choices: Collection[str]) -> str:
    """Suggest the choice that another trainer calls `name`, or the nearest one; "" if there is neither."""
    meanings = dict(zip(choices, choices, strict=True))
    for other, choice in OTHER_NAMES.items():
        if choice in meanings:
            meanings[other] = choice
    near = name
    if name not in meanings:
        near = nearest_name(name, meanings)
    if not near:
        return ""
    return _('did you mean "{name}"?', name=meanings[near])
