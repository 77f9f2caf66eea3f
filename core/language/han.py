"""Chinese characters: their one range, for classes of regular expressions (Unicode 16), and their spacing.

Python takes a millisecond or more to compile a class with it. So patterns with it are texts: `re` compiles
them when they are first used, and not when a module is imported.
"""

import re
from collections.abc import Mapping
from functools import partial

# Extension A, the basic block, compatibility ideographs, and the planes of the other extensions.
HAN = "\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"


def closed_up(template: str, values: Mapping[str, object]) -> str:
    """The template without spaces around Chinese values: there are none between Chinese words.

    Two spaces and more are an indent, or between columns.
    """
    for name, value in values.items():
        if re.match(f"[{HAN}“（]", str(value)):
            before = rf"(\{{(\w+)[^{{}}]*\}})?(?<![ -|]) \{{{name}\}}"
            template = re.sub(before, partial(_before_chinese, values, name), template)
        if re.search(f"[{HAN}）”]$", str(value)):
            after = partial(_after_chinese, values, name)
            template = re.sub(rf"\{{{name}\}} (?![ -z])(?=(\{{(\w+))?)", after, template)
    return template


def _after_chinese(values: Mapping[str, object], name: str, match: re.Match[str]) -> str:
    """A Chinese value without the space after it, but with it before a number or a Latin word: `行 3`."""
    if match[2] and re.match("[A-Za-z0-9]", str(values.get(match[2], ""))):
        return match[0]
    return f"{{{name}}}"


def _before_chinese(values: Mapping[str, object], name: str, match: re.Match[str]) -> str:
    """A Chinese value without the space before it, but with it after a number or a Latin word: `3 行`."""
    field, field_name = match[1] or "", match[2]
    if field_name and re.search("[A-Za-z0-9]$", str(values.get(field_name, ""))):
        return match[0]
    return f"{field}{{{name}}}"
