"""Names of source columns and of keys in turns, as a spec has them."""

from tuneyard.core.errors import show_value


def key_in_spec(name: str) -> str:
    """A source column or a key as a spec has it: in quotes unless it is one word."""
    if name.isidentifier():
        return name
    return show_value(name)
