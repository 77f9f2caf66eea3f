"""What the model classes of transformers do if a config.json leaves out keys, without importing transformers.

Published configs leave out what is the default of their class: Gemma's and GPT-2's have no
`tie_word_embeddings`, though both tie. `tools/class_defaults.py` writes the table from the classes.
"""

import functools
import json
from pathlib import Path
from typing import Any

from tuneyard.core.files import Fields

DEFAULTS = Path(__file__).with_name("class_defaults.json")
TIE = "tie_word_embeddings"
LIMIT = "max_position_embeddings"
WRAPPED = "language_model."
"""Where a model that wraps another one, whose class ties, has it."""
_SIZES = (
    "vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads",
    "num_key_value_heads", "head_dim", "rms_norm_eps", "hidden_act", "use_sliding_window",
)  # fmt: skip
FIELDS = {"llama": _SIZES, "qwen2": _SIZES, "qwen3": _SIZES}
"""The fields whose defaults the table has, by model types that can be exported."""


@functools.cache
def _table() -> dict[str, dict[str, Any]]:
    classes: dict[str, dict[str, Any]] = json.loads(DEFAULTS.read_text(encoding="utf-8"))["classes"]
    return classes


def class_entry(config: Fields) -> dict[str, Any]:
    """The table's entry for a config's model type, {} for a type that transformers 5.6 does not have.

    `ties` are pairs {head: embedding} by the names of the model, and `rule` decides if they share a weight.
    `text` is the key and the default type of the nested config. A checkpoint may leave out `prefix`.
    """
    return _table().get(str(config.get("model_type")), {})


def text_config(config: Fields) -> Fields | None:
    """The nested config of the language model, None if a config has none."""
    nested = config.get(text_key(config))
    if isinstance(nested, dict):
        return nested
    return None


def is_tied(config: Fields) -> bool | None:
    """Whether head and embedding share a weight by a config and its class.

    None if the class is not in the table and the config does not say it.
    """
    entry = class_entry(config)
    nested = text_config(config) or {}
    default: bool | None = entry.get(TIE)
    top = _switch(config.get(entry.get("old_key", TIE)))
    if top is None:
        top = _switch(config.get(TIE))
    text = _switch(nested.get(TIE))
    if text is None:
        text = _nested_entry(config).get(TIE)
    match entry.get("rule", "first"):
        case "always":
            return True
        case "either":
            return bool(top) or bool(default if text is None else text)
        case "text":
            return default if text is None else text
        case "own":
            return default if top is None else top
    if top is None:
        top = text
    return default if top is None else top


def tied_names(config: Fields) -> dict[str, str]:
    """The pairs {head: embedding} of a class by its tensors' names, {} if the class is not in the table."""
    entry = class_entry(config)
    pairs: dict[str, str] = entry.get("ties", {})
    if entry.get("rule") != "text":
        return pairs
    nested: dict[str, str] = _nested_entry(config).get("ties", {})
    return {f"{WRAPPED}{head}": f"{WRAPPED}{table}" for head, table in nested.items()} or pairs


def _nested_entry(config: Fields) -> dict[str, Any]:
    """The table's entry for the nested config of the language model, {} if the config has none.

    Without one the class makes it with values of its own, which are in the class's entry.
    """
    nested = text_config(config)
    if nested is None:
        return {}
    _unused, usual = class_entry(config).get("text", ("", ""))
    return _table().get(str(nested.get("model_type", usual)), {})


def is_conv1d(config: Fields) -> bool:
    """True if the linear layers of the class store [inputs, outputs]."""
    return "conv1d" in class_entry(config)


def untied(config: Fields) -> Fields:
    """A copy of a config whose head has a weight of its own, for whatever class reads it."""
    entry = class_entry(config)
    if entry.get("rule") == "always":  # transformers reads two weights as two all the same
        return dict(config)
    changed = {**config, TIE: False}
    old_key = entry.get("old_key")
    if old_key in config:
        changed[old_key] = False
    nested = text_config(config) or {}
    if TIE in nested or entry.get("rule") in ("text", "first", "either"):
        changed[text_key(config)] = {**nested, TIE: False}
    return changed


def with_vocabulary(config: Fields, rows: int) -> Fields:
    """A copy of a config for another number of rows of embedding and head."""
    nested = text_config(config)
    changed = dict(config)
    is_nested = nested is not None or "text" in class_entry(config)
    if is_nested:
        changed[text_key(config)] = {**(nested or {}), "vocab_size": rows}
    if not is_nested or "vocab_size" in config:
        changed["vocab_size"] = rows
    return changed


def text_key(config: Fields) -> str:
    """The key of the nested config of the language model."""
    key, _unused = class_entry(config).get("text", ("text_config", ""))
    return str(key)


def with_defaults(config: Fields) -> dict[str, Any]:
    """A config of a type in `FIELDS` with the defaults of its class."""
    entry = class_entry(config)
    fields = FIELDS.get(str(config.get("model_type")), ())
    defaults = {field: entry[field] for field in (*fields, LIMIT, "rope_theta") if field in entry}
    return {**defaults, **config}


def longest_sequence(config: Fields) -> int | None:
    """The longest sequence in tokens by a config, otherwise by its class. None if both have no limit."""
    nested = text_config(config) or {}
    nested_default, default = _nested_entry(config).get(LIMIT), class_entry(config).get(LIMIT)
    for value in (config.get(LIMIT), nested.get(LIMIT), nested_default, default):
        if isinstance(value, int):
            return value
    return None


def _switch(value: object) -> bool | None:
    return value if isinstance(value, bool) else None
