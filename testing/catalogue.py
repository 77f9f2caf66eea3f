"""The catalogue of messages: the templates of the code (`_`, `tr`, `marked`, …), with their Chinese."""

import ast
import io
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from string import Formatter

from babel.messages import Catalog
from babel.messages.extract import extract_from_dir
from babel.messages.mofile import write_mo
from babel.messages.pofile import read_po, write_po

from testing import ROOT
from tuneyard.core.documents import read_mapping

FOLDERS = ("core", "compiler", "recipes", "adapters", "eval", "tuneyard")
SPECS = ROOT / "compiler/specs"
PO = ROOT / "core/language/locale/zh/LC_MESSAGES/tuneyard.po"
KEYWORDS = {"_": None, "tr": None, "marked": None, "ngettext": (1, 2)}
HEADER = "# The Chinese of Tuneyard's messages, by their English. `make catalogue` brings it up to date."
FORMATTER = Formatter()
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


def committed() -> Catalog:
    """The catalogue as it is in the tree."""
    with PO.open("rb") as file:
        return read_po(file, locale="zh")


def empty() -> Catalog:
    """A catalogue without messages."""
    return Catalog(
        locale="zh",
        project="tuneyard",
        header_comment=HEADER,
        creation_date=NEVER,
        revision_date=NEVER,
        fuzzy=False,
    )


def updated(before: Catalog, code: Catalog) -> Catalog:
    """The templates of the code with the Chinese of the catalogue `before`.

    A template keeps its Chinese if only the names of its fields are others.
    """
    chinese_texts = _by_unnamed_templates(before)
    catalog = empty()
    for message in code:
        templates = texts_of(message.id)
        if not templates[0]:
            continue
        chinese = _renamed_chinese(templates, chinese_texts.get(_unnamed(templates), {}))
        catalog.add(message.id, chinese if len(templates) > 1 else "".join(chinese))
    return catalog


Texts = tuple[str, ...]
"""The template of a message, or its singular and its plural; or the Chinese of either."""


def texts_of(texts: object) -> Texts:
    if isinstance(texts, str):
        return (texts,)
    return tuple(texts) if isinstance(texts, tuple | list) else ()


def _field_names(templates: Texts) -> list[str]:
    """The names of the fields in their order, each once."""
    names = [
        name for template in templates for _text, name, _form, _mark in FORMATTER.parse(template) if name
    ]
    return list(dict.fromkeys(names))


def _with_names(template: str, names: Mapping[str, str]) -> str:
    """A template whose fields have other names."""
    parts = []
    for text, name, specification, conversion in FORMATTER.parse(template):
        parts.append(text.replace("{", "{{").replace("}", "}}"))
        if name is not None:
            mark = f"!{conversion}" if conversion else ""
            form = f":{specification}" if specification else ""
            parts.append(f"{{{names.get(name, name)}{mark}{form}}}")
    return "".join(parts)


def _unnamed(templates: Texts) -> Texts:
    """Templates with numbers for the names of fields: equal for those that differ by the names alone."""
    numbers = {name: str(number) for number, name in enumerate(_field_names(templates))}
    return tuple(_with_names(template, numbers) for template in templates)


def _translated(catalog: Catalog) -> Iterator[tuple[Texts, Texts]]:
    """Yield the templates that have Chinese, with it."""
    for message in catalog:
        templates, chinese = texts_of(message.id), texts_of(message.string)
        if templates and templates[0] and chinese and all(chinese):
            yield templates, chinese


def _by_unnamed_templates(catalog: Catalog) -> dict[Texts, dict[Texts, Texts]]:
    """The Chinese of templates, by those templates without and with the names of their fields."""
    chinese_texts: dict[Texts, dict[Texts, Texts]] = {}
    for templates, chinese in _translated(catalog):
        chinese_texts.setdefault(_unnamed(templates), {})[templates] = chinese
    return chinese_texts


def _renamed_chinese(templates: Texts, chinese: Mapping[Texts, Texts]) -> Texts:
    """The Chinese of the templates, else of those that differ by names of fields alone; () if there is none.

    Several of the latter may have different Chinese: then a person must choose.
    """
    if templates in chinese:
        return chinese[templates]
    candidates = set()
    for known, texts in chinese.items():
        names = dict(zip(_field_names(known), _field_names(templates), strict=True))
        candidates.add(tuple(_with_names(text, names) for text in texts))
    return candidates.pop() if len(candidates) == 1 else ()


def without_message(before: Catalog, after: Catalog) -> Iterator[tuple[str, str]]:
    """Yield the templates with their Chinese that the catalogue lost, whatever their fields are called."""
    remaining = {_unnamed(templates + chinese) for templates, chinese in _translated(after)}
    for templates, chinese in _translated(before):
        if _unnamed(templates + chinese) not in remaining:
            yield templates[-1], chinese[0]


def po_text(catalog: Catalog) -> bytes:
    """The catalogue as text in the order of its templates: two branches rarely edit the same lines."""
    file = io.BytesIO()
    write_po(
        file, catalog, width=0, no_location=True, omit_header=False, sort_output=True, ignore_obsolete=True
    )
    return file.getvalue()


def mo_bytes(catalog: Catalog) -> bytes:
    """The catalogue as programs read it, without messages that have no Chinese.

    Babel would write a plural without Chinese with its English singular for all numbers.
    """
    chinese = empty()
    for templates, texts in _translated(catalog):
        if len(templates) == 1:
            chinese.add(templates[0], texts[0])
        else:
            chinese.add(templates, texts)
    file = io.BytesIO()
    write_mo(file, chinese)
    return file.getvalue()


def untranslated(catalog: Catalog) -> Iterator[str]:
    """Templates that have no Chinese."""
    for message in catalog:
        if message.id and not all(message.string if isinstance(message.string, tuple) else [message.string]):
            yield message.id if isinstance(message.id, str) else message.id[0]
