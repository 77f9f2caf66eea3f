"""Bring the catalogue of messages up to date: `make catalogue`.

Takes the templates out of the code (`_`, `tr`, `marked`, `ngettext`, `counted`), keeps their Chinese, and
writes core/language/locale/zh/LC_MESSAGES/tuneyard.po and .mo. Lists what has no Chinese yet: it is printed
in English.
"""

import ast
import io
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

from babel.messages import Catalog
from babel.messages.extract import extract_from_dir
from babel.messages.mofile import write_mo
from babel.messages.pofile import read_po, write_po

from tuneyard.core.documents import read_mapping

ROOT = Path(__file__).parents[1]
FOLDERS = ("core", "compiler", "recipes", "adapters", "eval", "tuneyard")
SPECS = ROOT / "compiler/specs"
PO = ROOT / "core/language/locale/zh/LC_MESSAGES/tuneyard.po"
KEYWORDS = {"_": None, "tr": None, "marked": None, "ngettext": (1, 2)}
HEADER = "# The Chinese of Tuneyard's messages, by their English. `make catalogue` brings it up to date."
NEVER = datetime(2026, 1, 1, tzinfo=UTC)  # no date of today: the same messages give the same file
PAGES = [("**/page/*.js", "javascript"), ("**/page/*.html", "jinja2")]


def extracted() -> Catalog:
    """The templates of the code, without Chinese."""
    catalog = Catalog()
    for folder in FOLDERS:
        for path in sorted((ROOT / folder).rglob("*.py")):
            for template in templates_of(path.read_text(encoding="utf-8")):
                catalog.add(template)
        pages = extract_from_dir(ROOT / folder, PAGES, keywords=KEYWORDS)
        for _file, _line, text, _comments, _context in pages:
            catalog.add(text)
    for spec in sorted(SPECS.glob("*.yaml")):
        about = read_mapping(spec, "the spec").get("about")
        if isinstance(about, str):
            catalog.add(about)
    return catalog


def templates_of(code: str) -> Iterator[str | tuple[str, str]]:
    """The templates in the calls of Python code. Babel leaves out calls inside of one another."""
    for node in ast.walk(ast.parse(code)):
        if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Name)):
            continue
        texts = [argument.value for argument in node.args if isinstance(argument, ast.Constant)]
        match node.func.id, texts:
            case "_" | "tr" | "marked", [str(template), *_rest]:
                yield template
            case "ngettext", [str(singular), str(plural), *_rest]:
                yield singular, plural
            case "counted", [*_number, str(singular), str(plural)]:
                yield f"{{number:,}} {singular}", f"{{number:,}} {plural}"


def updated() -> Catalog:
    """The templates of the code with the Chinese of the catalogue. What no code has any more is left out."""
    catalog = Catalog(
        locale="zh",
        project="tuneyard",
        header_comment=HEADER,
        creation_date=NEVER,
        revision_date=NEVER,
        fuzzy=False,
    )
    with PO.open("rb") as file:
        before = read_po(file, locale="zh")
    for message in extracted():
        if message.id:
            known = before.get(message.id)
            chinese: str | tuple[str, ...] = "" if isinstance(message.id, str) else ("",)
            if known is not None and type(known.string) is type(chinese):
                chinese = known.string
            catalog.add(message.id, chinese)
    return catalog


def po_text(catalog: Catalog) -> bytes:
    """The catalogue as text in the order of its templates: two branches rarely edit the same lines."""
    file = io.BytesIO()
    write_po(
        file, catalog, width=0, no_location=True, omit_header=False, sort_output=True, ignore_obsolete=True
    )
    return file.getvalue()


def mo_bytes(catalog: Catalog) -> bytes:
    """The catalogue as programs read it."""
    file = io.BytesIO()
    write_mo(file, catalog)
    return file.getvalue()


def untranslated(catalog: Catalog) -> Iterator[str]:
    """Templates that have no Chinese."""
    for message in catalog:
        if message.id and not all(message.string if isinstance(message.string, tuple) else [message.string]):
            yield message.id if isinstance(message.id, str) else message.id[0]


def main() -> None:
    """Write both files, and list what has no Chinese."""
    catalog = updated()
    PO.write_bytes(po_text(catalog))
    PO.with_suffix(".mo").write_bytes(mo_bytes(catalog))
    missing = list(untranslated(catalog))
    sys.stdout.writelines(f"{template!r}\n" for template in missing)
    print(f"{len(catalog)} messages, {len(missing)} without Chinese")


if __name__ == "__main__":
    main()
