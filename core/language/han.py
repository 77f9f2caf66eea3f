"""Chinese characters: their one range, for classes of regular expressions (Unicode 16), and their spacing."""

import re
from collections.abc import Mapping

# Extension A, the basic block, compatibility ideographs, and the planes of the other extensions.
HAN = "\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"
_CHINESE_START = re.compile(f"[{HAN}]")
_CHINESE_END = re.compile(f"[{HAN}）]$")


def closed_up(template: str, values: Mapping[str, object]) -> str:
    """The template without spaces around Chinese values: there are none between Chinese words.

    Two spaces and more are an indent, or between columns.
    """
    for name, value in values.items():
        if _CHINESE_START.match(str(value)):
            template = re.sub(rf"(?<! ) \{{{name}\}}", f"{{{name}}}", template)
        if _CHINESE_END.search(str(value)):
            template = re.sub(rf"\{{{name}\}} (?! )", f"{{{name}}}", template)
    return template
