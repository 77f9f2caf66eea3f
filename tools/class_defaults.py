"""Write core/weights/class_defaults.json: what transformers' classes do if a config.json leaves out keys.

    .venv/bin/python -m tools.class_defaults

It needs transformers and torch. A test runs it with `--check`.
"""

import contextlib
import inspect
import json
import sys
from collections.abc import Callable, Iterator
from typing import Any

import transformers
from huggingface_hub.errors import StrictDataclassError
from transformers import CONFIG_MAPPING
from transformers.models.auto import modeling_auto

from tools.written import write_or_check
from tuneyard.core.weights.class_defaults import DEFAULTS, FIELDS, LIMIT, TIE, WRAPPED

CLASSES = (  # in the order in which LLaMA-Factory looks for a class (model/loader.py)
    modeling_auto.MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING,
    modeling_auto.MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING,
    modeling_auto.MODEL_FOR_TEXT_TO_WAVEFORM_MAPPING,
    modeling_auto.MODEL_FOR_CAUSAL_LM_MAPPING,
)
LEFT_OUT = ("encoder-decoder", "vision-encoder-decoder", "musicgen", "musicgen_melody", "evolla")
"""Models of which the config has no defaults, and one that no class of these opens."""
GIVEN = ("hidden_size", "num_attention_heads")
"""Fields that `fields_of` changes, to see which others follow them."""
OLD_KEYS = ("tie_embedding",)
"""Names of `tie_word_embeddings` in older configs, of those classes that read them."""


class UnreadRuleError(Exception):
    """A class decides in a way for which the file has no word."""


def model_types() -> list[str]:
    """The model types for which LLaMA-Factory finds a class that has defaults."""
    kinds: set[str] = set()
    for mapping in CLASSES:
        kinds.update(mapping._model_mapping)  # by model type, GPT-SW3 too, whose config is GPT-2's
    return sorted(kinds - set(LEFT_OUT))


def model_class(config_class: type) -> Any:
    """The class that LLaMA-Factory opens for a config."""
    for mapping in CLASSES:
        if config_class in mapping:
            classes = mapping[config_class]
            return classes[0] if isinstance(classes, tuple) else classes
    raise UnreadRuleError(config_class)


def text_part(config: Any) -> str:
    """The key of the nested config of the language model, "" if there is none."""
    text = config.get_text_config()
    for name in type(config).sub_configs:
        if getattr(config, name, None) is text:
            return str(name)
    return ""


def ties_of(config_class: type) -> tuple[dict[str, str], bool]:
    """The pairs {head: embedding} of the class, and whether the text config decides.

    A class without pairs of its own may wrap a language model that has some.
    """
    ties = model_class(config_class)._tied_weights_keys
    if ties:
        return {head: table for head, table in ties.items() if head.endswith(".weight")}, False
    config = config_class()
    part = text_part(config)
    text_class = type(getattr(config, part)) if part else None
    if text_class not in modeling_auto.MODEL_FOR_CAUSAL_LM_MAPPING:
        return {}, False
    ties = modeling_auto.MODEL_FOR_CAUSAL_LM_MAPPING[text_class]._tied_weights_keys or {}
    return {f"{WRAPPED}{head}": f"{WRAPPED}{table}" for head, table in ties.items()}, True


def tie_of(
    config_class: Any, part: str, in_text: bool, *, top: bool | None, text: bool | None
) -> bool | None:
    """What a config with these values of tie_word_embeddings decides. None if the class refuses it."""
    fields: dict[str, Any] = {} if top is None else {TIE: top}
    if part:
        inner = {"model_type": getattr(config_class(), part).model_type}
        fields[part] = inner if text is None else {**inner, TIE: text}
    try:
        config = config_class.from_dict(fields)
    except (ValueError, StrictDataclassError):
        return None
    decides = getattr(config, part) if in_text else config
    return bool(getattr(decides, TIE, False))


def rule_of(config_class: type, part: str, in_text: bool) -> tuple[str, bool]:
    """The rule by which a class decides, and its default.

    own: its config's key. text: the text config's key. first: its own, otherwise the text config's. either:
    one of both. always: whatever the config has.
    """
    texts = (None, True, False) if part else (None,)
    table = {}
    for top in (None, True, False):
        for text in texts:
            table[top, text] = tie_of(config_class, part, in_text, top=top, text=text)
    default = bool(table[None, None])
    rules: dict[str, Callable[[bool | None, bool | None], bool]] = {
        "always": lambda *_unused: True,
        "own": lambda top, _unused: default if top is None else top,
        "text": lambda _unused, text: default if text is None else text,
        "first": lambda top, text: top if top is not None else default if text is None else text,
        "either": lambda top, text: bool(top) or bool(text),
    }
    for name, rule in rules.items():
        if all(value in (None, rule(*case)) for case, value in table.items()):
            return name, default
    raise UnreadRuleError(f"{config_class}: {table}")


def read_class(kind: str) -> dict[str, Any]:
    """One entry of the file."""
    config_class = CONFIG_MAPPING[kind]
    config = config_class()
    part = text_part(config)
    ties, in_text = ties_of(config_class)
    entry: dict[str, Any] = {}
    opened = model_class(config_class)
    prefix = opened.base_model_prefix
    if prefix and f"self.{prefix} = " in inspect.getsource(opened.__init__):
        entry["prefix"] = prefix
    if hasattr(sys.modules[opened.__module__], "Conv1D"):
        entry["conv1d"] = True
    if part:
        entry["text"] = [part, getattr(config, part).model_type]
    if ties:
        rule, default = rule_of(config_class, part, in_text)
        entry |= {"ties": ties, "rule": rule, TIE: default}
        for key in OLD_KEYS:
            with contextlib.suppress(StrictDataclassError):  # DBRX refuses it
                if getattr(config_class.from_dict({key: not default}), TIE, default) != default:
                    entry["old_key"] = key
    entry |= dict(fields_of(kind, config))
    return entry


def fields_of(kind: str, config: Any) -> Iterator[tuple[str, object]]:
    """The defaults of other fields. What depends on other fields is null: the class computes it."""
    limit = getattr(config.get_text_config(), LIMIT, None)
    if isinstance(limit, int):
        yield LIMIT, limit
    if kind not in FIELDS:
        return
    narrow = type(config)(hidden_size=48, num_attention_heads=6)
    for field in FIELDS[kind]:
        value = getattr(config, field, None)
        is_computed = getattr(narrow, field, None) != value and field not in GIVEN
        yield field, None if is_computed else value
    yield "rope_theta", config.rope_parameters["rope_theta"]


def text_of_all() -> str:
    """The whole file: one model type a line."""
    lines = [f'{{"transformers": {json.dumps(transformers.__version__)}, "classes": {{']
    entries = [f"  {json.dumps(kind)}: {json.dumps(read_class(kind))}" for kind in model_types()]
    return "\n".join([*lines, ",\n".join(entries), "}}\n"])


if __name__ == "__main__":
    sys.exit(write_or_check("tools.class_defaults", {DEFAULTS.resolve(): text_of_all()}))
