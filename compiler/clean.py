"""Changes to texts that a spec may ask for (`clean:`, `wrap:`); none is made otherwise."""

import html
import unicodedata
from collections.abc import Callable, Sequence
from functools import partial

Values = list[object]
STEPS: dict[str, Callable[[str], str]] = {
    "nfc": partial(unicodedata.normalize, "NFC"),
    "strip": str.strip,
    "unescape": html.unescape,
}


def cleaner(steps: Sequence[str]) -> Callable[[Values], Values]:
    """Return a function that makes these changes, in order, to every text of a column."""
    changes = [STEPS[step] for step in steps]

    def clean(values: Values) -> Values:
        for change in changes:
            values = [change(value) if isinstance(value, str) else value for value in values]
        return values

    return clean


def wrapped(wrap: str, values: Values) -> Values:
    """Return texts with what stands around `{}` put around them; empty texts stay empty."""
    if wrap == "{}":
        return values
    before, _, after = wrap.partition("{}")
    return [f"{before}{value}{after}" if value else value for value in values]
