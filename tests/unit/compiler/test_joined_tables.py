"""Tables that were joined: the header of each but the first is a row like the first one."""

import csv
import io

import openpyxl
import pytest

from tests.unit.compiler.conftest import Bench
from tuneyard.compiler.init.command import propose

FILMS = [[f"I saw film number {n} twice", ("pos", "neg")[n % 2]] for n in range(60)]
SUMS = [[str(n), f"What is {n} plus {n}?", str(2 * n)] for n in range(60)]
CHINESE = [[f"第{n}个问题是什么？", f"这是第{n}个回答。"] for n in range(60)]


def joined(header: list[str], rows: list[list[str]], parts: int, between: str = "", **form) -> str:
    """Tables of these rows, one after the other, each with the header."""
    text = ""
    size = len(rows) // parts
    for number in range(parts):
        table = io.StringIO()
        csv.writer(table, **form).writerows([header, *rows[number * size : (number + 1) * size]])
        text += (between if number else "") + table.getvalue()
    return text


@pytest.mark.parametrize("between", ["", "\ufeff", "\n"])
@pytest.mark.parametrize("form", [{}, {"quoting": csv.QUOTE_ALL}, {"delimiter": ";"}])
@pytest.mark.parametrize("parts", [2, 3, 6])
@pytest.mark.parametrize(
    ("header", "rows"),
    [
        (["text", "label"], FILMS),
        (["id", "question", "answer"], SUMS),
        (["问题", "答案"], CHINESE),
    ],
)
def test_init_takes_a_row_like_the_first_one_for_a_header(
    bench: Bench, header: list[str], rows: list[list[str]], parts: int, form: dict, between: str
) -> None:
    """From two repeats on, the first row was taken for one of texts and classes."""
    source = bench.write("joined.csv", joined(header, rows, parts, between, **form))
    spec, report, _ = propose(source, 0)
    assert "header:" not in spec
    assert f"{parts - 1} of {60 + parts - 1} rows would be rejected" in report and "E010" in report
    compiled = bench.compile(spec, reject=True)
    assert (compiled.kept, compiled.problems.counts["E010"]) == (60, parts - 1)


def test_a_row_that_is_there_twice_is_no_header(bench: Bench) -> None:
    """A table without a header, in which the first row comes again."""
    for name, rows in (("films", [*FILMS, FILMS[0]]), ("sums", [*SUMS, SUMS[0]])):
        table = io.StringIO()
        csv.writer(table).writerows(rows)
        spec, _, _ = propose(bench.write(f"{name}.csv", table.getvalue()), 0)
        assert "header:" in spec
        assert bench.compile(spec).read == 61


@pytest.mark.parametrize(
    "again", ["Question,ANSWER", '"question","answer"', " question , answer", "question,answer"]
)
@pytest.mark.parametrize("first", ["question,answer", '"question","answer"', "Question,Answer"])
def test_a_header_that_is_written_otherwise_is_one(bench: Bench, first: str, again: str) -> None:
    rows = [f"What is {n}?,It is {n}." for n in range(30)]
    source = bench.write("faq.csv", "\n".join([first, *rows[:15], again, *rows[15:]]) + "\n")
    spec, _, _ = propose(source, 0)
    assert "quoted:" not in spec and "header:" not in spec
    report = bench.compile(spec, reject=True)
    assert (report.kept, report.problems.counts["E010"]) == (30, 1)


def test_a_text_that_is_called_as_its_column_is_no_header(bench: Bench) -> None:
    report = bench.compile("text", bench.write("notes.csv", "text\nA line.\nText\nAnother line.\n"))
    assert report.kept == 3


@pytest.mark.parametrize("name", ["rows.csv", "rows.tsv", "rows.xlsx"])
def test_a_header_among_the_rows_is_never_learned(bench: Bench, name: str) -> None:
    """In a workbook, and after a byte-order mark, it was a row."""
    header = ["question", "answer"]
    rows = [*CHINESE[:3], header, *CHINESE[3:6]]
    source = bench.folder / name
    if name.endswith("xlsx"):
        book = openpyxl.Workbook()
        for row in [header, *rows]:
            book.active.append(row)
        book.save(source)
    else:
        rows[3] = ["\ufeffquestion", "answer"]
        delimiter = "," if name.endswith("csv") else "\t"
        source.write_text("".join(delimiter.join(row) + "\n" for row in [header, *rows]), encoding="utf-8")
    report = bench.compile("qa", source, reject=True)
    assert (report.kept, report.problems.counts["E010"]) == (6, 1)
