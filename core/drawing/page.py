"""Write self-contained pages: one file, escaped texts, and a policy that forbids connections.

A page is a Jinja template `page.html` with `style.css` and `script.js` beside it. It needs no other file.
"""

import base64
import hashlib
import re
from pathlib import Path
from typing import Any

from tuneyard.core.language.message import translated_template
from tuneyard.core.language.reader import current

_SCRIPT_TEXT = re.compile(r'"([^"\\\n]+)"')
THEME = Path(__file__).with_name("page_theme.css")
"""Colours in light and dark, the font, and the rules that all pages share."""


def fill_page(folder: Path, **values: Any) -> str:
    """Fill the template of a page; `values` are its names besides policy, style, script and lang.

    The policy allows the page's own script and style sheet alone, by their hashes.
    """
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    script = (folder / "script.js").read_text(encoding="utf-8")
    style = THEME.read_text(encoding="utf-8") + (folder / "style.css").read_text(encoding="utf-8")
    files = Environment(
        loader=FileSystemLoader(folder),
        autoescape=True,
        undefined=StrictUndefined,
        keep_trailing_newline=True,
    )
    text: str = files.get_template("page.html").render(
        policy=content_policy(script, style),
        style=style,
        script=script,
        lang={"zh": "zh-CN"}.get(current(), current()),
        **values,
    )
    return text.encode(errors="replace").decode()  # half characters (lone surrogates) become `?`


def words_of(folder: Path) -> dict[str, str]:
    """The texts in the script of a page in the language of the reader, by their English, for its `tr`.

    Without those that are the same in both: most of them are no sentences, but code between two quotes.
    """
    script = (folder / "script.js").read_text(encoding="utf-8")
    words = {}
    for text in _SCRIPT_TEXT.findall(script):
        translation = translated_template(text)
        if translation != text:
            words[text] = translation
    return words


def content_policy(script: str, style: str) -> str:
    """Content-Security-Policy that forbids connections. It allows exactly this script and style sheet."""
    sources = []
    for text in (style, script):
        digest = hashlib.sha256(text.encode()).digest()
        sources.append(f"'sha256-{base64.b64encode(digest).decode()}'")
    return (
        f"default-src 'none'; img-src data:; style-src {sources[0]}; script-src {sources[1]}; "
        "base-uri 'none'; form-action 'none'"
    )


def embedded(json_text: str) -> str:
    """JSON text without the characters that could close its <script> element or open a comment in it."""
    return json_text.replace("&", "\\u0026").replace("<", "\\u003c").replace(">", "\\u003e")
