"""Names of source columns and of keys in turns, brought into one spelling so that they can be compared."""

import re
from functools import lru_cache

from tuneyard.core.errors import show_value

_HUMP = re.compile(r"(?<=[a-z0-9])(?=[A-Z])")
_SIGNS = re.compile(r"[\W_]+")


@lru_cache(1000)
def snake_case(name: str) -> str:
    """A name (the last step of a path) in snake case: `meta.systemPrompt` is `system_prompt`."""
    last_step = name.rpartition(".")[2]
    words = last_step if last_step.isupper() else _HUMP.sub("_", last_step)
    return _SIGNS.sub("_", words.lower()).strip("_")


def key_in_spec(name: str) -> str:
    """A source column or a key as a spec has it: in quotes unless it is one word."""
    if name.isidentifier():
        return name
    return show_value(name)
