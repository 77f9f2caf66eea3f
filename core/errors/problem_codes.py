"""Each problem code in Chinese: its meaning and its fix.

A Chinese reader gets these lines below the problems. Places, codes and values stay as they are.
`make reference` writes the list of all, `docs/zh/problems.md` (tools/reference.py).
"""

import functools
import json
from collections.abc import Iterable
from pathlib import Path

from tuneyard.core.language.reader_language import CHINESE, current

_FILE = Path(__file__).with_name("problem_codes_zh.json")


@functools.cache
def explanations() -> dict[str, list[str]]:
    """Meaning and fix of each code, in Chinese."""
    texts: dict[str, list[str]] = json.loads(_FILE.read_text(encoding="utf-8"))
    return texts


def guide(codes: Iterable[str]) -> list[str]:
    """A line for each code, `E104：含义。怎么做`, for a Chinese reader. Other readers get none.

    Codes of plug-ins have no explanation and are skipped.
    """
    if current() != CHINESE:
        return []
    return [explained(code) for code in sorted(explanations().keys() & set(codes))]


def explained(code: str) -> str:
    """A code with its meaning and its fix, on one line."""
    meaning, fix = explanations()[code]
    return f"{code}：{meaning}。{fix}"
