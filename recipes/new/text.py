"""The text of a new recipe: YAML with the reason of each value above it."""

import re
import textwrap
from collections.abc import Sequence
from decimal import Decimal
from typing import Any

from tuneyard.core.documents import dump_yaml
from tuneyard.core.language.message import translated
from tuneyard.core.text.quoting import one_line
from tuneyard.recipes.new.settings import Section

WIDTH = 110
NUMBER = re.compile(r"[-+]?[\d.]+([eE][-+]?\d+)?")


def recipe_text(header: Sequence[str], sections: Sequence[Section]) -> str:
    """A whole recipe: its header as comments, then the sections."""
    lines: list[str] = []
    for text in header:
        lines += _comment(text) or ["#"]
    for title, values in sections:
        lines += ["", f"### {title}"]
        for value in values:
            lines += _comment(value.reason)
            if value.key:
                lines.append(f"{value.key}: {scalar(value.value)}")
    return "\n".join(lines) + "\n"


def _comment(text: str) -> list[str]:
    """A text as comment lines in the language of the reader, [] for ""."""
    lines = map(one_line, translated(text).splitlines())  # YAML forbids control characters
    commented = textwrap.indent("\n".join(lines), "# ")
    return textwrap.wrap(
        commented, WIDTH, subsequent_indent="# ", break_long_words=False, break_on_hyphens=False
    )


def scalar(value: Any) -> str:
    """A value as YAML that OmegaConf reads as the same value: 1.0e-4, not 0.0001."""
    if isinstance(value, float) and 0 < value < 1e-2:
        digits, exponent = f"{Decimal(repr(value)).normalize():e}".split("e")
        if "." not in digits:
            digits += ".0"
        return f"{digits}e{int(exponent)}"
    if isinstance(value, str) and NUMBER.fullmatch(value):
        return f"'{value}'"  # PyYAML writes 1e-4 without quotes, and OmegaConf reads a number
    return dump_yaml({"key": value}).removeprefix("key: ").removesuffix("\n")
