"""Each problem code in Chinese: its meaning and its fix.

A Chinese reader gets these lines below the problems. Places, codes and values stay as they are.
`make reference` writes the list of all, `docs/zh/problems.md` (tools/reference.py).
"""

import functools
import json
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from tuneyard.core.language.reader_language import CHINESE, current

_FILE = Path(__file__).with_name("problem_codes_zh.json")


class Explanation(NamedTuple):
    """Meaning and fix of a problem code, in Chinese."""

    meaning: str
    fix: str


@functools.cache
def explanations() -> dict[str, Explanation]:
    """Chinese explanations by code."""
    texts = json.loads(_FILE.read_text(encoding="utf-8"))
    return {code: Explanation(*text) for code, text in texts.items()}


def guide(codes: Iterable[str]) -> list[str]:
    """A line for each code, `E104：含义。怎么做`, for a Chinese reader. Other readers get none.

    Codes of plug-ins have no explanation and are skipped.
    """
    if current() != CHINESE:
        return []
    return [explained(code) for code in sorted(explanations().keys() & set(codes))]


def explained(code: str) -> str:
    """A code with its meaning and its fix, on one line."""
    explanation = explanations()[code]
    return f"{code}：{explanation.meaning}。{explanation.fix}"
