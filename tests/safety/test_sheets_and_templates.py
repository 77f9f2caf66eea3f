"""Workbooks, archives and templates of files that would take all memory or never end are refused by name.

SECURITY.md, "Texts".
"""

import os
import random
import subprocess
import sys
import time
import zipfile
import zlib
from collections.abc import Callable, Iterator
from datetime import date, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace

import openpyxl
import pytest

from tests.messages import raises
from tests.unit.test_house import FILES, name
from tuneyard.compiler.read import read
from tuneyard.compiler.read.cells import text_of_time
from tuneyard.compiler.rows.problems import Problems
from tuneyard.compiler.spec.file import Source
from tuneyard.compiler.spec.load import load_spec
from tuneyard.compiler.spec.model import placeholders
from tuneyard.core import errors
from tuneyard.core.errors import ContentError, LimitError, Problem
from tuneyard.core.llamafactory.prompt import chat_renderer, templates
from tuneyard.core.llamafactory.prompt.rendering import template_renderer
from tuneyard.core.llamafactory.prompt.templates import render_template
from tuneyard.core.llamafactory.prompt.trained_files import read_trained

ADDRESSES = 3_000_000_000
MAIN = "http://schemas.openxmlformats.org/spreadsheetml/2006/main"
SHEET = "xl/worksheets/sheet1.xml"
HEAD = f'<worksheet xmlns="{MAIN}"><sheetData>'
TAIL = "</sheetData></worksheet>"
STRINGS = f'<sst xmlns="{MAIN}"><si><t>q</t></si><si><t>a</t></si>'
HEADER = '<row r="1"><c r="A1" t="s"><v>0</v></c><c r="B1" t="s"><v>1</v></c></row>'
GOOD = '<row><c t="inlineStr"><is><t>Q</t></is></c><c><v>7</v></c></row>'
TYPES = "application/vnd.openxmlformats-officedocument.spreadsheetml."
RELATIONS = "http://schemas.openxmlformats.org/officeDocument/2006/relationships"
PARTS = {
    "[Content_Types].xml": "<Types>"
    f'<Override PartName="/xl/workbook.xml" ContentType="{TYPES}sheet.main+xml"/>'
    f'<Override PartName="/xl/s.xml" ContentType="{TYPES}sharedStrings+xml"/>'
    f'<Override PartName="/xl/styles.xml" ContentType="{TYPES}styles+xml"/></Types>',
    "xl/workbook.xml": f'<workbook xmlns:r="{RELATIONS}"><sheets>'
    '<sheet name="S" r:id="r1"/></sheets></workbook>',
    "xl/_rels/workbook.xml.rels": "<Relationships>"
    f'<Relationship Id="r1" Type="{RELATIONS}/worksheet" Target="worksheets/sheet1.xml"/></Relationships>',
    "xl/s.xml": STRINGS + "</sst>",
    "xl/styles.xml": "<styleSheet/>",
    SHEET: HEAD + HEADER + GOOD + TAIL,
}
LOL = (
    '<!DOCTYPE x [<!ENTITY a "lol">'
    + "".join(f'<!ENTITY {b} "{f"&{a};" * 10}">' for a, b in zip("abcdefghi", "bcdefghij", strict=True))
    + "]>"
)
Part = str | tuple[str, str, int, str]
"""The text of a part: whole, or a beginning, a piece, how often it is repeated, and an end."""


def workbook(path: Path, **parts: Part) -> Path:
    """Write a workbook with these parts in place of the good ones: `sheet`, `strings`, `book`, `styles`."""
    names = {"sheet": SHEET, "strings": "xl/s.xml", "book": "xl/workbook.xml", "styles": "xl/styles.xml"}
    texts: dict[str, Part] = {**PARTS, **{names[key]: part for key, part in parts.items()}}
    write_archive(path, texts)
    return path


def write_archive(path: Path, texts: dict[str, Part]) -> None:
    """Gigabytes are written in no time: deflated blocks of equal text are equal bytes."""
    with zipfile.ZipFile(path, "w") as archive:
        for member, part in texts.items():
            if isinstance(part, str):
                archive.writestr(member, part)
                continue
            begin, piece, count, end = part
            block = piece * max(1, (1 << 20) // len(piece))
            repeats = -(-count * len(piece) // len(block))
            data = packed(begin) + packed(block) * repeats + packed(end, zlib.Z_FINISH)
            info = zipfile.ZipInfo(member)
            info.compress_type = zipfile.ZIP_DEFLATED
            info.file_size = len(begin) + len(block) * repeats + len(end)
            info.compress_size = len(data)
            info.header_offset = archive.start_dir
            info.CRC = checksum(begin, block, repeats, end)
            archive.fp.write(info.FileHeader(zip64=True) + data)
            archive.filelist.append(info)
            archive.NameToInfo[member] = info
            archive.start_dir = archive.fp.tell()


def checksum(begin: str, block: str, repeats: int, end: str) -> int:
    """The CRC of a part; 0 for gigabytes, whose end nobody reads."""
    if len(block) * repeats > 1 << 28:
        return 0
    return zlib.crc32((begin + block * repeats + end).encode())


def packed(text: str, mode: int = zlib.Z_FULL_FLUSH) -> bytes:
    deflate = zlib.compressobj(9, zlib.DEFLATED, -15)
    return deflate.compress(text.encode()) + deflate.flush(mode)


def row(number: int, cells: str) -> str:
    return f'<row r="{number}">{cells}</row>'


def inline(reference: str, text: str) -> str:
    return f'<c r="{reference}" t="inlineStr"><is><t>{text}</t></is></c>'


GIGABYTES = 3_000_000_000
HOSTILE: dict[str, tuple[dict[str, Part], str, str, str]] = {
    "a gap": ({"sheet": HEAD + HEADER + row(10**9, "<c/>") + TAIL}, "E012", "row 1", "1,000,000,000"),
    "a row beyond Excel's": ({"sheet": HEAD + HEADER + row(1048577, "<c/>")}, "E012", "row 1", "1,048,577"),
    "rows in disorder": ({"sheet": HEAD + HEADER + GOOD + row(2, "<c/>")}, "E012", "row 2", "found row 2 "),
    "a number of 5,000 digits": (
        {"sheet": HEAD + row(1, "").replace("1", "9" * 5000)},
        "E012",
        "row 1",
        "5000",
    ),
    "a column beyond XFD": (
        {"sheet": HEAD + HEADER + row(2, inline("XFE2", "x"))},
        "E012",
        "row 2",
        "16,385",
    ),
    "cells without an end": ({"sheet": (HEAD + "<row>", "<c/>", 10**8, "")}, "E012", "row 1", "16,385"),
    "rows without cells": ({"sheet": (HEAD, "<row/>", 10**8, TAIL)}, "E012", "row 1048576", "1,048,577"),
    "elements that are no rows": ({"sheet": (HEAD, "<a/>", 10**8, TAIL)}, "E012", "row 1", "1,048,576"),
    "an inline text of zeros": (
        {"sheet": (HEAD + HEADER + '<row><c t="inlineStr"><is><t>', "0", GIGABYTES, TAIL)},
        "E014",
        "row 2",
        "16 MiB",
    ),
    "a number of zeros": ({"sheet": (HEAD + "<row><c><v>", "0", GIGABYTES, TAIL)}, "E014", "row 1", "16 MiB"),
    "a row of one large text, often": (
        {
            "strings": STRINGS + f"<si><t>{'x' * 1_000_000}</t></si></sst>",
            "sheet": HEAD + HEADER + row(2, '<c t="s"><v>2</v></c>' * 17),
        },
        "E014",
        "row 2",
        "16 MiB",
    ),
    "a shared text of 3 GB": (
        {"strings": (STRINGS + "<si><t>", "x", GIGABYTES, "")},
        "E014",
        "shared text 3",
        "16",
    ),
    "shared texts in pieces": (
        {"strings": (STRINGS + "<si>", "<r><t>" + "x" * 9000 + "</t></r>", 300_000, "")},
        "E014",
        "shared text 3",
        "16",
    ),
    "a large list of styles": (
        {
            "styles": ("<styleSheet><cellXfs>", "<xf/>", 10**8, ""),
            "sheet": HEAD + row(1, '<c s="1"><v>1</v></c>'),
        },
        "E012",
        "",
        "16,777,216",
    ),
    "a long number format": (
        {
            "styles": f'<styleSheet><numFmt numFmtId="200" formatCode="{"[" * 90_000}"/></styleSheet>',
            "sheet": HEAD + row(1, '<c s="1"><v>1</v></c>'),
        },
        "E012",
        "",
        "90,000",
    ),
    "a large list of sheets": (
        {"book": ("<workbook><sheets>", '<sheet name="S"/>', 10**8, "")},
        "E012",
        "",
        "workbook",
    ),
    "a billion laughs": (
        {"sheet": LOL + HEAD + row(1, inline("A1", "&j;")) + TAIL},
        "E012",
        "row 1",
        "document type",
    ),
    "laughs in shared texts": (
        {"strings": LOL + STRINGS + "<si><t>&j;</t></si></sst>"},
        "E012",
        "",
        "document type",
    ),
    "an external entity": (
        {
            "sheet": '<!DOCTYPE x [<!ENTITY e SYSTEM "file:///etc/hostname">]>'
            + HEAD
            + row(1, inline("A1", "&e;"))
        },
        "E012",
        "row 1",
        "document type",
    ),
    "a comment of 3 GB": (
        {"sheet": (HEAD + HEADER + "<!--", "x", GIGABYTES, "-->")},
        "E012",
        "row 1",
        "1 MiB",
    ),
    "an attribute of 3 GB": ({"sheet": (HEAD + '<row r="', "1", GIGABYTES, '">')}, "E012", "row 1", "1 MiB"),
    "elements inside each other": ({"sheet": (HEAD, "<a>", 10**8, "")}, "E012", "row 1", "256"),
    "names of elements": (
        {"sheet": HEAD + "".join(f"<n{number}/>" for number in range(20_000))},
        "E012",
        "row 1",
        "10,000",
    ),
    "one part as two sheets": (
        {"book": PARTS["xl/workbook.xml"].replace("<sheets>", '<sheets><sheet name="test" r:id="r1"/>')},
        "E012",
        "",
        "sheet1.xml",
    ),
    "a sheet that is not there": (
        {"book": PARTS["xl/workbook.xml"].replace('r:id="r1"', 'r:id="../../etc/passwd"')},
        "E012",
        "",
        "passwd",
    ),
    "a merged cell of a billion rows": (
        {
            "sheet": HEAD + HEADER + row(2, inline("A2", "x")) + "</sheetData><mergeCells>"
            '<mergeCell ref="A1:B1000000000"/>'
        },
        "E012",
        "",
        "A1:B1000000000",
    ),
    "merged cells without an end": (
        {
            "sheet": (
                HEAD + HEADER + row(2, inline("A2", "x")) + "</sheetData><mergeCells>",
                '<mergeCell ref="A1:XFD1048576"/>',
                10**7,
                "",
            )
        },
        "E012",
        "",
        "4,194,304",
    ),
    "a shared text that is not there": (
        {"sheet": HEAD + HEADER + row(2, '<c t="s"><v>-1</v></c>')},
        "E012",
        "row 2",
        "shared text 0",
    ),
}
SLOW = {"merged cells without an end"}


def problem_of(path: Path) -> Problem:
    """The problem for which reading a file ends."""
    problems = Problems()
    for _ in read(path, path.name, Source(), problems):
        pass
    (problem,) = problems.errors
    return problem


@pytest.mark.parametrize(
    "case", [pytest.param(case, marks=pytest.mark.slow) if case in SLOW else case for case in HOSTILE]
)
def test_a_hostile_workbook_is_refused_with_its_place(tmp_path: Path, case: str) -> None:
    parts, code, place, figure = HOSTILE[case]
    problem = problem_of(workbook(tmp_path / "a.xlsx", **parts))
    assert (problem.code, problem.place) == (
        code,
        f"a.xlsx{', ' if 'shared' in place else ' '}{place}".strip(),
    )
    assert figure in problem.message


def test_the_good_workbook_is_read(tmp_path: Path) -> None:
    problems = Problems()
    (rows,) = read(workbook(tmp_path / "a.xlsx"), "a.xlsx", Source(), problems)
    assert not problems.errors
    assert [rows.row(0), rows.location(0)] == [{"q": "Q", "a": 7}, "a.xlsx row 2"]


@pytest.mark.slow
def test_twenty_million_shared_texts_are_refused(tmp_path: Path) -> None:
    path = workbook(tmp_path / "a.xlsx", strings=(STRINGS, "<si><t>x</t></si>", 20_000_000, "</sst>"))
    problem = problem_of(path)
    assert (problem.code, problem.place) == ("E012", "a.xlsx") and "8,388,608" in problem.message


@pytest.mark.slow
def test_a_large_workbook_takes_little_memory(tmp_path: Path) -> None:
    """100,000 rows with a value in column XFD each, which openpyxl fills up to 1.6 billion cells.

    The peak is VmHWM: getrusage's begins at that of the process that spawned this one, here of many tests.
    """
    path = workbook(
        tmp_path / "a.xlsx", sheet=(HEAD + HEADER, GOOD.replace("<c><v>", '<c r="XFD2"><v>'), 100_000, TAIL)
    )
    script = (
        "import resource, sys\n"
        f"resource.setrlimit(resource.RLIMIT_AS, ({ADDRESSES}, {ADDRESSES}))\n"
        "from pathlib import Path\n"
        "from tuneyard.compiler.rows.problems import Problems\n"
        "from tuneyard.compiler.read import read\n"
        "from tuneyard.compiler.spec.file import Source\n"
        "problems = Problems()\n"
        "for _ in read(Path(sys.argv[1]), 'a.xlsx', Source(), problems): pass\n"
        "problems.end_batch()\n"
        "peak = Path('/proc/self/status').read_text().split('VmHWM:')[1].split()[0]\n"
        "print(problems.counts['E008'], int(peak) >> 10)\n"
    )
    process = subprocess.run([sys.executable, "-c", script, path], capture_output=True, text=True, timeout=60)
    assert process.stderr == ""
    count, mebibytes = map(int, process.stdout.split())
    assert count >= 100_000 and mebibytes < 500


def values(book: Path) -> list[list[object]]:
    """The cells of a workbook below its header as openpyxl reads them, a second implementation."""
    sheet = openpyxl.load_workbook(book, data_only=True).active
    rows = []
    for cells in sheet.iter_rows(min_row=2):
        texts: list[object] = []
        for cell in cells:
            value = cell.value
            if isinstance(value, float) and value.is_integer():
                value = int(value)
            if hasattr(value, "isoformat") or isinstance(value, timedelta):
                value = text_of_time(value, cell.number_format)
            texts.append(value)
        if any(value is not None for value in texts):
            rows.append(texts)
    return rows


@pytest.mark.parametrize("seed", range(20))
def test_workbooks_are_read_as_by_openpyxl(tmp_path: Path, seed: int) -> None:
    source = random.Random(seed)
    makers: list[Callable[[], object]] = [
        lambda: None,
        lambda: source.choice(["x", " a\nb ", "é𝄞", "<&>", "1", "=", "x005F_y", "_x000D_"]),
        lambda: source.choice([0, -3, 1.5, 1e300, 2.0, 10**15]),
        lambda: source.choice([True, False]),
        lambda: datetime(2024, 2, 29, 1, 2, 3) + timedelta(days=source.randrange(20_000)),
        lambda: date(1904, 1, 3) + timedelta(days=source.randrange(20_000)),
        lambda: timedelta(hours=source.randrange(1000), minutes=7),
    ]
    book = openpyxl.Workbook()
    if seed % 3 == 0:
        book.epoch = datetime(1904, 1, 1)
    names = [f"c{number}" for number in range(source.randrange(2, 40))]
    book.active.append(names)
    for _ in range(source.randrange(2, 120)):
        book.active.append([source.choice(makers)() for _ in names])
    for cells in book.active.iter_rows(min_row=2):
        for cell in cells:
            if isinstance(cell.value, int | float) and source.random() < 0.3:
                cell.number_format = source.choice(['0.00"d"', "[Red]0", "#,##0", "0%"])
    book.save(tmp_path / "a.xlsx")
    problems = Problems()
    rows = [
        list(batch.row(number).values())
        for batch in read(tmp_path / "a.xlsx", "a.xlsx", Source(), problems)
        for number in range(len(batch.lines))
    ]
    assert not problems.errors and rows == values(tmp_path / "a.xlsx")


def test_members_that_share_bytes_are_refused(tmp_path: Path) -> None:
    """Fifield's archive: all members are one."""
    write_archive(tmp_path / "a.zip", {"a.jsonl": ('{"q": "', "x", 1000, '"}')})
    with zipfile.ZipFile(tmp_path / "a.zip", "a") as archive:
        (first,) = archive.infolist()
        for number in range(2000):
            copied = zipfile.ZipInfo(f"{number}.jsonl")
            copied.CRC = first.CRC
            copied.compress_type, copied.header_offset = first.compress_type, first.header_offset
            copied.file_size, copied.compress_size = first.file_size, first.compress_size
            archive.filelist.append(copied)
        archive.NameToInfo.clear()
        archive._didModify = True
    problem = problem_of(tmp_path / "a.zip")
    assert problem.code == "E004" and "share bytes" in problem.message


EXPORTS: dict[str, tuple[str, Part, str]] = {
    "ChatGPT": ("conversations.json", ('[{"title": "', "a", GIGABYTES, '"}]'), "E014"),
    "Slack": ("general/2024-01-01.json", ("[", " ", 100_000_000, "]"), "E013"),
    "Label Studio": ("export.json", ('[{"id": 1, "data": ', "[", GIGABYTES, ""), "E003"),
    "Telegram": ("result.json", ('{"messages": [{"id": 1, "text": "', "x", GIGABYTES, '"}]}'), "E014"),
    "a table": ("a.csv", ("q,a\n", "0", GIGABYTES, ""), "E014"),
    "a workbook": ("a.zip", ("", "0", 1000, ""), "E004"),
}


@pytest.mark.parametrize("case", EXPORTS)
def test_an_export_that_decodes_to_gigabytes_is_refused(tmp_path: Path, case: str) -> None:
    member, part, code = EXPORTS[case]
    write_archive(tmp_path / "a.zip", {member: part})
    problems = Problems()
    rows = list(read(tmp_path / "a.zip", "a.zip", Source(), problems))
    assert not rows
    assert {problem.code for problem in problems.errors} <= {code}
    assert problems.errors or code == "E013"


LOOPS = "{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}"
LISTS = (
    "{% set n = namespace(a=[1], b=[1]) %}{% for i in range(90) %}"
    "{% set n.a = [n.a, n.a] %}{% set n.b = [n.b, n.b] %}{% endfor %}"
)
DOUBLED = (
    "{% set n = namespace(a='x') %}{% for i in range(60) %}{% set n.a = n.a ~ n.a %}{% endfor %}{{ n.a }}"
)
TEMPLATES = {
    "repeat": ("{{ 'a' * 3000000000 }}", "512 MiB"),
    "doubled": (DOUBLED, "512 MiB"),
    "doubled list": (DOUBLED.replace("'x'", "[1]").replace("~", "+"), "512 MiB"),
    "center": ("{{ 'a' | center(3000000000) }}", "512 MiB"),
    "format": ("{{ '%3000000000d' | format(1) }}", "512 MiB"),
    "method": ("{{ '{:>3000000000}'.format(1) }}", "512 MiB"),
    "indent": ("{{ 'a\nb' | indent(2000000000) }}", "512 MiB"),
    "tojson": ("{{ [1] | tojson(indent=2000000000) }}", "512 MiB"),
    "batch": ("{{ [1] | batch(3000000000, 'x') | list }}", "512 MiB"),
    "nested loops": (LOOPS, "0.5 s"),
    "nested lists": (LISTS + "{{ n.a == n.b }}", "0.5 s"),
    "nested tuples": (
        LISTS.replace("[1]", "(1,)").replace("[n.a, n.a]", "(n.a, n.a)") + "{{ {n.a: 1} }}",
        "0.5 s",
    ),
    "words": ("{{ lipsum(n=10000000) }}", "0.5 s"),
    "output": ("{% for i in range(99999) %}{{ 'x' * 999 }}{% endfor %}", "16 MiB"),
    "list": ("{{ range(10 ** 9) | list }}", "range"),
    "macro": ("{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}", "recursion"),
    "brackets": ("{{ " + "(" * 100_000 + "1" + ")" * 100_000 + " }}", "recursion"),
    "class": ("{{ ''.__class__.__mro__ }}", "__class__"),
    "file": ("{% include '/etc/passwd' %}", "no loader"),
}
USER = [{"role": "user", "content": "Q"}]


@pytest.fixture
def half_a_second(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(errors, "TIME_LIMIT", 0.5)
    yield
    templates._RENDERER._seconds.clear()
    templates._RENDERER._limits.clear()


@pytest.mark.parametrize("case", TEMPLATES)
@pytest.mark.usefixtures("half_a_second")
def test_a_hostile_template_is_refused_with_its_limit(case: str) -> None:
    template, limit = TEMPLATES[case]
    with pytest.raises(ContentError) as caught:
        template_renderer(template, {})(USER, True)
    assert "the chat template" in str(caught.value) and limit.lower() in str(caught.value).lower()
    assert template_renderer("{{ messages[0].content }}", {})(USER, True) == "Q"


@pytest.mark.usefixtures("half_a_second")
def test_the_time_is_that_of_all_texts_of_a_template() -> None:
    """Each text takes a fifth of the limit; the template as a whole takes more."""
    template = "{% for i in range(99999) %}{% for j in range(n) %}{% endfor %}{% endfor %}"
    started = sum(os.times()[2:4])
    with pytest.raises(LimitError):
        for _ in range(1000):
            render_template(template, {"n": 20})
    assert sum(os.times()[2:4]) - started < 5
    began = time.monotonic()
    with raises(LimitError, "0.5 s"):
        render_template(template, {"n": 0})
    assert time.monotonic() - began < 0.1


def test_many_short_texts_are_within_the_time() -> None:
    texts = {render_template("{{ n }}", {"n": number}) for number in range(2000)}
    assert len(texts) == 2000


@pytest.mark.usefixtures("half_a_second")
def test_the_file_of_a_template_is_named(tmp_path: Path) -> None:
    (tmp_path / "chat_template.jinja").write_text(TEMPLATES["repeat"][0])
    with raises(LimitError, tmp_path / "chat_template.jinja", "512"):
        read_trained(tmp_path)


def test_the_place_that_scoring_gives_is_named() -> None:
    tokenizer = SimpleNamespace(
        apply_chat_template=lambda *_, **__: render_template("{{ 'a' * 3000000002 }}", {})
    )
    with raises(LimitError, "models/x", "512"):
        chat_renderer(tokenizer, "x", place="models/x")(USER, True)


def test_a_fork_has_a_process_of_its_own() -> None:
    assert render_template("{{ a }}", {"a": 1}) == "1"
    child = os.fork()
    if child == 0:
        os._exit(0 if render_template("{{ a }}", {"a": 2}) == "2" else 1)
    assert os.waitpid(child, 0)[1] == 0
    assert render_template("{{ a }}", {"a": 3}) == "3"


def test_the_names_of_a_template_arrive_unchanged() -> None:
    names = {"a": "\ud83d é𝄞\u2028", "b": [1.5, None, True, {"ü": "\n"}], "c": "x" * 2_000_000}
    assert render_template("{{ a }}{{ b | tojson }}{{ c }}", names) == (
        "\ud83d é𝄞\u2028" + '[1.5, null, true, {"ü": "\\n"}]' + "x" * 2_000_000
    )


@pytest.mark.slow
def test_tokenizers_of_transformers_render_there_too() -> None:
    from tokenizers import Tokenizer, models
    from transformers import PreTrainedTokenizerFast

    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer(models.WordLevel({"a": 0}, "a")), bos_token="<s>"
    )
    templates.limit_transformers()
    talk = tokenizer.apply_chat_template(
        USER, chat_template="{{ bos_token }}{{ messages[0].content }}", tokenize=False
    )
    assert talk == "<s>Q"
    with raises(LimitError, "512"):
        tokenizer.apply_chat_template(USER, chat_template="{{ 'a' * 3000000001 }}", tokenize=False)


def test_no_other_place_compiles_a_template() -> None:
    places = {name(path) for path in FILES if "Environment(" in path.read_text(encoding="utf-8")}
    assert places == {"core/llamafactory/prompt/template_child.py", "core/drawing/page.py"}


def test_a_template_of_a_spec_names_a_column_sixteen_times_at_most(tmp_path: Path) -> None:
    assert len(placeholders("{a}{b}" * 16)) == 32
    for text in ("{a}" * 17, "{a}{b}" * 1_000_000):
        with raises(ValueError, "{a}", 16):
            placeholders(text)
    spec = tmp_path / "x.yaml"
    output = f'{{file: t.jsonl, format: text, text: "{"{a}" * 100_000}"}}'
    spec.write_text(f"about: x\ncolumns: {{a: [a]}}\nwrite: [{output}]\n")
    with raises(ContentError, "{a}", 16):
        load_spec(str(spec))
