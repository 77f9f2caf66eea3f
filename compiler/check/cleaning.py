"""The changes to texts that a spec may ask for (`clean:`, `wrap:`); the compiler makes no others."""

import html
import re
import unicodedata
from collections.abc import Callable, Iterable, Sequence
from functools import partial

_TAGS = "a|p|b|i|em|strong|ul|ol|li|code|pre|blockquote|div|span|h[1-6]|table|tr|td|th|sub|sup"
HTML = re.compile(rf"</(?:{_TAGS})>|<(?:br|hr) ?/?>|<p>", re.IGNORECASE)  # not `List<a>`
_BLOCKS = ("p", "ul", "ol", "pre", "blockquote", "table", "h1", "h2", "h3", "h4", "h5", "h6")
_ENDS = dict.fromkeys(_BLOCKS, "\n\n")
_ENDS |= dict.fromkeys(("br", "hr", "li", "tr", "div"), "\n")


def without_html(text: str) -> str:
    """Replace tags and entities by text, with blank lines between blocks. A text without tags stays."""
    if not HTML.search(text):
        return text
    from lxml import etree
    from lxml.html import fragment_fromstring

    root = fragment_fromstring(text, create_parent="div")
    etree.strip_elements(root, etree.Comment, "script", "style", with_tail=False)
    for node in root.iterdescendants():
        if node.tag == "li":
            node.text = f"- {node.text or ''}"
        if node.tag in _ENDS:
            node.tail = _ENDS[node.tag] + (node.tail or "").lstrip("\n")
    return re.sub(r"\n{3,}", "\n\n", root.text_content()).strip()


STEPS: dict[str, Callable[[str], str]] = {
    "nfc": partial(unicodedata.normalize, "NFC"),
    "strip": str.strip,
    "unescape": html.unescape,
    "html": without_html,
}


def cleaner(steps: Sequence[str]) -> Callable[[str], str]:
    """A function that applies these changes to a text, in order."""
    changes = [STEPS[step] for step in steps]

    def clean(text: str) -> str:
        for change in changes:
            text = change(text)
        return text

    return clean


def wrapped(wrap: str, values: Iterable[object]) -> list[object]:
    """Put the texts of `wrap:` before and after `{}` around each text. Empty texts stay empty."""
    before, _, after = wrap.partition("{}")
    return [f"{before}{value}{after}" if value else value for value in values]
