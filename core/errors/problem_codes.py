"""Each problem code in Chinese: its meaning and its fix.

A Chinese reader gets these lines below the problems. Places, codes and values stay as they are.
`make reference` writes the list of all, `docs/zh/problems.md`.
"""

import functools
import json
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from tuneyard.core.language.reader_language import CHINESE, current

_FILE = Path(__file__).with_name("problem_codes_zh.json")
_INTRODUCTION = """\
# 问题代码

`tuneyard data check`、`data compile`、`data verify` 和 `recipe check` 报告的代码。代码不会改变。E… 是错误，
W… 是警告（`--strict` 使它们成为错误），N… 是提示。每一行问题的格式是
`位置: 代码 字段: 发现了什么, 应为什么; 怎么修复`。`--lang zh`，或中文的语言环境（`LANG=zh_CN.UTF-8`），
在问题下面给出这里的说明：含义，然后是怎么做。英文的例子见 [problems](../problems.md)。
"""


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
    return [_line(code) for code in sorted(explanations().keys() & set(codes))]


def document() -> str:
    """Markdown of `docs/zh/problems.md`."""
    lines = [_INTRODUCTION, *(f"- {_line(code)}" for code in sorted(explanations()))]
    return "\n".join(lines) + "\n"


def _line(code: str) -> str:
    explanation = explanations()[code]
    return f"{code}：{explanation.meaning}。{explanation.fix}"


if __name__ == "__main__":
    sys.stdout.write(document())
