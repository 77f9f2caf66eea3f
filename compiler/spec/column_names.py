"""Names of source columns and of keys in turns, brought into one spelling so that they can be compared."""

import re
from functools import lru_cache

from tuneyard.core.errors import show_value

_HUMP = re.compile(r"(?<=[a-z0-9])(?=[A-Z])")
_SIGNS = re.compile(r"[\W_]+")


@lru_cache(1000)
def snake_case(step: str) -> str:
    """A name, one step of a path, in snake case: `systemPrompt` is `system_prompt`."""
    words = step if step.isupper() else _HUMP.sub("_", step)
    return _SIGNS.sub("_", words.lower()).strip("_")


def key_in_spec(name: str) -> str:
    """A source column or a key as a spec has it: in quotes unless it is one word."""
    if name.isidentifier():
        return name
    return show_value(name)
