"""docs/problems.md and its Chinese page, from the entries of the codes (`make reference` writes both)."""

from collections.abc import Iterator

from tuneyard.core.cli.explain import problem_codes
from tuneyard.core.errors.problem_codes import ProblemCode, guide
from tuneyard.core.language.reader import CHINESE, in_language

HEAD = """\
# Problems

Made by `make reference`; `tuneyard --explain E104` prints an entry. A problem is one line:
`place: code field: found, expected; fix`. E… are errors, W… warnings (errors with `data compile --strict`),
N… notes. Errors stop a compile; `--on-error reject` puts bad rows into `rejected.jsonl`, unless the file
cannot be read on. Examples: `tests/examples`.
"""
SECTIONS = {"0": "Files and lines", "1": "Values", "2": "Rows", "3": "Recipes", "4": "Registered datasets"}
"""The heading of the codes with this first digit."""
CHINESE_HEAD = """\
# 问题代码

`tuneyard data check`、`data compile`、`data verify` 和 `recipe check` 报告的代码。代码不会改变。E… 是错误，
W… 是警告（`--strict` 使它们成为错误），N… 是提示。每一行问题的格式是
`位置: 代码 字段: 发现了什么, 应为什么; 怎么修复`。`--lang zh`，或中文的语言环境（`LANG=zh_CN.UTF-8`），
在问题下面给出这里的说明：含义，然后是怎么做。`tuneyard --explain E104` 也打印它。
英文见 [problems](../problems.md)。
"""


def problems_page() -> str:
    """The page of all codes in English: a section for each, sections in the order of their numbers."""
    parts = [HEAD]
    digit = ""
    for entry in sorted(problem_codes().values(), key=_order):
        if entry[1] != digit:
            digit = entry[1]
            parts.append(f"## {SECTIONS[digit]}\n")
        parts.append("\n\n".join(_section(entry)) + "\n")
    return "\n".join(parts)


def _order(entry: ProblemCode) -> tuple[str, int]:
    """By number; of one number errors before warnings and notes."""
    return entry[1:], "EWN".index(entry[0])


def _section(entry: ProblemCode) -> Iterator[str]:
    """The heading and the text of a code. A fix that refers to the message is left out: the page has none."""
    yield f"### {entry} {entry.meaning}"
    sentences = [entry.details, "" if "the message" in entry.fix else entry.fix]
    text = " ".join(filter(None, sentences))
    if text:
        yield text


def chinese_problems_page() -> str:
    """The page of all codes in Chinese: a line for each."""
    entries = sorted(problem_codes().values(), key=_order)
    with in_language(CHINESE):
        lines = [CHINESE_HEAD, *(f"- {line}" for entry in entries for line in guide([entry]))]
    return "\n".join(lines) + "\n"
