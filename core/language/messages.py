"""Printed lines of the first steps in Chinese, by their English: summaries, `doctor`, `init` and errors.

messages_zh.json has whole lines with {fields}, so that the code that makes a line has one wording of it.
"""

import functools
import json
import re
from pathlib import Path

from tuneyard.core.language.han import closed_up
from tuneyard.core.language.reader_language import CHINESE, current

_FILE = Path(__file__).with_name("messages_zh.json")
_FIELD = re.compile(r"\\\{(\w+)\\\}")


@functools.cache
def _lines() -> list[tuple[re.Pattern[str], str]]:
    """The pattern of each English line, and the Chinese one."""
    patterns = []
    for english, chinese in json.loads(_FILE.read_text(encoding="utf-8")).items():
        patterns.append((re.compile(_FIELD.sub(r"(?P<\1>.+?)", re.escape(english))), chinese))
    return patterns


def for_reader(text: str) -> str:
    """A printed text, line by line in Chinese for a Chinese reader. Lines that have no Chinese stay."""
    if current() != CHINESE:
        return text
    return "\n".join(map(_translated, text.split("\n")))


def _translated(line: str) -> str:
    for pattern, chinese in _lines():
        fields = pattern.fullmatch(line)
        if fields is not None:
            values = {name: _translated(value) for name, value in fields.groupdict().items()}
            return closed_up(chinese, values).format(**values)
    return line
