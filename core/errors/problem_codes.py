"""Each problem code in Chinese: its meaning and its fix.

A Chinese reader gets these lines below the problems. Places, codes and values stay as they are.
`make reference` writes the list of all, `docs/zh/problems.md` (tools/reference.py).
"""

from collections.abc import Iterable

from tuneyard.core.language.messages import CHINESE, catalogue, current

EXPLANATIONS = "problem_codes_zh"
"""Name of the catalogue with the meaning and the fix of each code, in Chinese."""


def guide(codes: Iterable[str]) -> list[str]:
    """A line for each code, `E104：含义。怎么做`, for a Chinese reader. Other readers get none.

    Codes of plug-ins have no explanation and are skipped.
    """
    if current() != CHINESE:
        return []
    texts = catalogue(EXPLANATIONS)
    return [f"{code}：{texts[code]}" for code in sorted(texts.keys() & set(codes))]
