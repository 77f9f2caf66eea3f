"""Messages keep their values apart from their text; the catalogue holds the Chinese of what the code says."""

import ast
import copy
import gettext
import io
import pickle
import re
from pathlib import Path
from string import Formatter

import pytest
from babel.messages import Catalog
from babel.messages.pofile import read_po

from testing import catalogue
from tests.conftest import ROOT
from tests.product import FILES, nodes
from tuneyard.core.errors import ContentError, Problem
from tuneyard.core.language.message import (
    Message,
    _,
    counted,
    joined,
    listed,
    ngettext,
    relative,
    tr,
    translated,
    with_texts,
)
from tuneyard.core.language.messages import say
from tuneyard.core.language.reader import CHINESE, in_language

OURS = ("result: 42", "3 rows", "error: no such file", "{rows}", "no label", "{0.__class__}", "%s")
"""Texts of users that look like lines or templates of ours."""


def fields(template: str) -> set[str]:
    return {name for _text, name, _form, _conversion in Formatter().parse(template) if name is not None}


def test_both_files_of_the_catalogue_have_the_same_messages() -> None:
    """After a change of the .po file: `make catalogue`."""
    committed = catalogue.committed()
    assert catalogue.PO.with_suffix(".mo").read_bytes() == catalogue.mo_bytes(committed)


def test_no_chinese_is_left_behind_by_its_message() -> None:
    """After other words in a message: `make catalogue`. A new message stays English and fails no test."""
    code = {catalogue.texts_of(message.id) for message in catalogue.extracted()}
    templates = [message.id for message in catalogue.committed() if message.id and message.string]
    assert [template for template in templates if catalogue.texts_of(template) not in code] == []


@pytest.mark.parametrize(
    ("template", "chinese", "template_now", "chinese_now"),
    [
        ("it took {minutes}", "用时 {minutes}", "it took {time}", "用时 {time}"),
        ("{n:,} of {all:,}", "{all:,} 行中的 {n:,} 行", "{a:,} of {b:,}", "{b:,} 行中的 {a:,} 行"),
        ("{path!r} is {{}}, not {path!r}", "{path!r} 是 {{}}", "{a!r} is {{}}, not {a!r}", "{a!r} 是 {{}}"),
        (("{name} is", "{name} are"), ("{name} 是",), ("{names} is", "{names} are"), ("{names} 是",)),
        ("{rows:,} rows", "{rows:,} 行", "{rows} rows", ""),
        ("{a} and {b} rows", "{a} 和 {b} 行", "{a} and {a} rows", ""),
        ("it took {time}", "用时 {time}", "it lasted {time}", ""),
    ],
)  # fmt: skip
def test_a_message_keeps_its_chinese_if_its_fields_get_other_names(
    template: str | tuple[str, str],
    chinese: str | tuple[str],
    template_now: str | tuple[str, str],
    chinese_now: str | tuple[str],
) -> None:
    before, code = Catalog(locale="zh"), Catalog()
    before.add(template, chinese)
    code.add(template_now)
    now = catalogue.updated(before, code)
    assert now[template_now].string == (chinese_now if isinstance(chinese_now, str) else tuple(chinese_now))
    gone = [(template, chinese)] if chinese_now == "" else []
    assert list(catalogue.without_message(before, now)) == gone


def test_two_chinese_texts_for_a_renamed_message_are_a_persons_choice() -> None:
    before, code = Catalog(locale="zh"), Catalog()
    before.add("{rows} left", "还有 {rows} 行")
    before.add("{minutes} left", "还有 {minutes} 分钟")
    code.add("{hours} left")
    code.add("{rows} left")
    now = catalogue.updated(before, code)
    assert (now["{hours} left"].string, now["{rows} left"].string) == ("", "还有 {rows} 行")
    assert list(catalogue.without_message(before, now)) == [("{minutes} left", "还有 {minutes} 分钟")]


def test_what_has_no_chinese_is_english_in_the_right_number() -> None:
    catalog = Catalog(locale="zh")
    catalog.add(("{number} shot", "{number} shots"))
    catalog.add(("{number} row", "{number} rows"), ("{number} 行",))
    catalog.add("no rows")
    chinese = gettext.GNUTranslations(io.BytesIO(catalogue.mo_bytes(catalog)))
    shots = [chinese.ngettext("{number} shot", "{number} shots", number) for number in (0, 1, 2)]
    assert shots == ["{number} shots", "{number} shot", "{number} shots"]
    assert chinese.ngettext("{number} row", "{number} rows", 2) == "{number} 行"
    assert chinese.gettext("no rows") == "no rows"


def test_both_languages_have_the_same_fields() -> None:
    checked = 0
    with catalogue.PO.open("rb") as file:
        for message in read_po(file, locale="zh"):
            if not message.id or not message.string or not all(message.string):
                continue
            english, chinese = message.id, message.string
            if not isinstance(english, str):
                english, chinese = english[-1], chinese[0]
            assert fields(chinese) <= fields(english), english  # an unknown field would be a traceback
            checked += 1
    assert checked > 1000


def test_a_message_is_english_until_it_is_shown() -> None:
    message = _("{first} and {last}", first="a", last="b")
    assert message == "a and b" and f"{message}" == "a and b" and translated(message) == "a and b"
    with in_language(CHINESE):
        assert message == "a and b" and translated(message) == "a 和 b" == tr(
            "{first} and {last}", first="a", last="b"
        )
    assert (message.template, dict(message.values)) == ("{first} and {last}", {"first": "a", "last": "b"})


@pytest.mark.parametrize("text", OURS)
def test_values_are_never_translated(text: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Neither alone nor inside of another message, an error or a problem."""
    with in_language(CHINESE):
        inner = _("{first} and {last}", first=text, last=text)
        assert translated(inner) == f"{text} 和 {text}"
        say(_("warning: {what}", what=_("{first} and {last}", first=ContentError(inner), last="x")))
        assert capsys.readouterr().out == f"警告：{text} 和 {text} 和 x\n"
        line = Problem("E104", "a.jsonl:1", _("{first} and {last}", first=text, last=1)).line()
        assert f"{text} 和 1" in translated(line)


def test_a_message_comes_back_from_a_worker_and_from_a_copy() -> None:
    message = _("warning: {what}", what=counted(2000, "row", "rows"))
    for again in (pickle.loads(pickle.dumps(message)), copy.deepcopy(message)):
        assert again == message == "warning: 2,000 rows"
        with in_language(CHINESE):
            assert translated(again) == "警告：2,000 行"


def test_numbers_choose_the_form() -> None:
    assert [counted(number, "row", "rows") for number in (0, 1, 2)] == ["0 rows", "1 row", "2 rows"]
    assert ngettext("{name} is", "{name} are", 2, name="a, b") == "a, b are"
    with in_language(CHINESE):
        assert [translated(counted(number, "row", "rows")) for number in (1, 2)] == ["1 行", "2 行"]


def test_what_is_joined_stays_a_message() -> None:
    lines = joined([counted(1, "row", "rows"), "1 row"], "\n")
    names = listed(["a", "b", "c"])
    assert (lines, names) == ("1 row\n1 row", "a, b and c")
    with in_language(CHINESE):
        assert (translated(lines), translated(names)) == ("1 行\n1 row", "a、b 和 c")
    shorter = with_texts(lines, str.upper)
    assert isinstance(shorter, Message) and shorter == "1 row\n1 ROW"


def test_a_line_break_of_a_value_is_escaped_once() -> None:
    """Also where the template quotes the value, which escapes it already."""
    message = _("found {text!r}, expected {other}", text="a\n\x1b", other="b\nc")
    line = Problem("E104", "a.jsonl:1", message).line()
    assert line == "a.jsonl:1: E104: found 'a\\n\\x1b', expected b\\nc"


def test_a_path_below_the_folder_is_written_from_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert _("wrote {path}", path=tmp_path / "a/b.txt") == "wrote a/b.txt"
    assert _("wrote {path}", path=Path("/elsewhere/b.txt")) == "wrote /elsewhere/b.txt"
    assert _("wrote {path}", path=str(tmp_path / "a")) == f"wrote {tmp_path}/a", "a text is a value, no path"
    assert relative(tmp_path) == str(tmp_path)


def test_no_product_code_takes_the_mark_of_messages_as_a_throw_away_name() -> None:
    """`for _, name in …` would make `_` a local variable, and `_("…")` an error of the function."""
    for file in FILES:
        for node in nodes(file):
            if isinstance(node, ast.Name) and node.id == "_":
                assert not isinstance(node.ctx, ast.Store), f"{file.relative_to(ROOT)}:{node.lineno}"
            if isinstance(node, ast.arg):
                assert node.arg != "_", f"{file.relative_to(ROOT)}:{node.lineno}"


SHOWN_TO_PEOPLE = re.compile(r"(?:\w*Error|say|warn|warn_once|Problem)$")


def test_what_people_read_is_a_message() -> None:
    """An f-string in an error or in a printed line would stay English for ever."""
    found = []
    for file in FILES:
        for node in nodes(file):
            if not isinstance(node, ast.Call):
                continue
            name = node.func.id if isinstance(node.func, ast.Name) else ""
            if SHOWN_TO_PEOPLE.match(name):
                found += [f"{file.relative_to(ROOT)}:{text.lineno}" for text in node.args if is_wordy(text)]
    assert found == []


def is_wordy(node: ast.expr) -> bool:
    """True for an f-string with words of ours beside its fields."""
    if not isinstance(node, ast.JoinedStr):
        return False
    texts = [part.value for part in node.values if isinstance(part, ast.Constant)]
    return bool(re.search("[a-z]{3,} [a-z]", " ".join(texts)))


MARKS = {"_", "ngettext", "counted", "joined", "listed"}
ENGLISH = {"eval/scoring/candidates.py", "adapters/export/hub.py"}
"""Names of candidates in results, and cards for the hub: they are English for every reader."""


def test_messages_are_put_together_as_messages() -> None:
    """`", ".join(messages)` and `f"{message}"` are English for ever: `joined`, or fields of a message."""
    places = []
    for file in FILES:
        name = str(file.relative_to(ROOT))
        if name in ENGLISH:
            continue
        for function in nodes(file):
            if not isinstance(function, ast.FunctionDef):
                continue
            lists = lists_of_messages(function)
            places += [f"{name}:{node.lineno}" for node in ast.walk(function) if is_put_together(node, lists)]
    assert sorted(set(places)) == []


def is_message(node: ast.expr) -> bool:
    return isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in MARKS


def has_message(node: ast.expr) -> bool:
    """True for a message, or for a list or comprehension of messages."""
    match node:
        case ast.List(elts=items) | ast.Tuple(elts=items):
            return any(map(has_message, items))
        case ast.ListComp(elt=item) | ast.GeneratorExp(elt=item) | ast.Starred(value=item):
            return has_message(item)
        case ast.IfExp(body=first, orelse=second):
            return has_message(first) or has_message(second)
    return is_message(node)


def lists_of_messages(function: ast.FunctionDef) -> set[str]:
    """The variables of a function that are lists with messages."""
    names = set()
    for node in ast.walk(function):
        match node:
            case ast.Assign(targets=[ast.Name(id=name)], value=ast.List() | ast.ListComp() as value):
                changed, values = name, [value]
            case ast.AugAssign(target=ast.Name(id=name), value=ast.List() | ast.ListComp() as value):
                changed, values = name, [value]
            case ast.Call(func=ast.Attribute(value=ast.Name(id=name), attr="append"), args=values):
                changed = name
            case _:
                continue
        if any(map(has_message, values)):
            names.add(changed)
    return names


def is_put_together(node: ast.AST, lists: set[str]) -> bool:
    """True for a text that is made of messages, and has lost their Chinese."""
    match node:
        case ast.Call(func=ast.Attribute(value=ast.Constant(), attr="join"), args=[ast.Name(id=name)]):
            return name in lists
        case ast.Call(func=ast.Attribute(value=ast.Constant(), attr="join"), args=[parts]):
            return has_message(parts)
        case ast.JoinedStr(values=values):
            return any(isinstance(part, ast.FormattedValue) and is_message(part.value) for part in values)
    return False
