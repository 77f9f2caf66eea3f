"""The changes to texts that a spec may ask for (`clean:`, `wrap:`); the compiler makes no others."""

import html
import re
import unicodedata
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from lxml.html import HtmlElement

_TAGS = "a|p|b|i|em|strong|ul|ol|li|code|pre|blockquote|div|span|h[1-6]|table|tr|td|th|sub|sup"
HTML = re.compile(rf"</(?:{_TAGS})>|<(?:br|hr) ?/?>|<p>", re.IGNORECASE)  # not `List<a>`
_BLOCKS = ("p", "ul", "ol", "pre", "blockquote", "table", "h1", "h2", "h3", "h4", "h5", "h6")
_ENDS = dict.fromkeys(_BLOCKS, "\n\n")
_LINES = (
    "li",
    "tr",
    "div",
    "dt",
    "dd",
    "caption",
    "section",
    "article",
    "header",
    "footer",
    "figcaption",
    "option",
)
_ENDS |= dict.fromkeys(("br", "hr", *_LINES), "\n")
_CELLS = ("td", "th")
_BETWEEN_CELLS = " | "


def without_html(text: str) -> str:
    """Replace tags and entities by text, with blank lines between blocks. A text without tags stays.

    A row of a table is a line, `a | b`.
    """
    if not HTML.search(text):
        return text
    from lxml import etree
    from lxml.html import fragment_fromstring

    root = fragment_fromstring(text, create_parent="div")
    etree.strip_elements(root, etree.Comment, "script", "style", with_tail=False)
    for node in root.iterdescendants():
        if node.tag == "li":
            node.text = f"- {node.text or ''}"
        if node.tag in (*_BLOCKS, *_LINES):
            _end_line_before(node)
        if node.tag in _ENDS and not _ends_cell(node):
            node.tail = _ENDS[node.tag] + (node.tail or "").lstrip("\n")
        following = node.getnext()
        if node.tag in _CELLS and following is not None and following.tag in _CELLS:
            node.tail = _BETWEEN_CELLS
    return re.sub(r"\n{3,}", "\n\n", root.text_content()).strip()


def _end_line_before(node: "HtmlElement") -> None:
    """End the line of the text right before a block, which would be joined to the text of the block."""
    before = node.getprevious()
    if before is not None:
        before.tail = _as_line(before.tail)
    else:
        parent = node.getparent()
        if parent is not None and parent.tag not in ("li", *_CELLS):
            parent.text = _as_line(parent.text)


def _as_line(text: str | None) -> str | None:
    return f"{text.rstrip(' ')}\n" if text and text.strip() and not text.endswith("\n") else text


def _ends_cell(node: "HtmlElement") -> bool:
    """True for the last block of a cell: the text after it is that of the next cell."""
    parent = node.getparent()
    is_last = node.getnext() is None and not (node.tail or "").strip()
    return parent is not None and parent.tag in _CELLS and is_last


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
    before, _unused, after = wrap.partition("{}")
    return [f"{before}{value}{after}" if value else value for value in values]
