"""Text, Arrow, Excel and archives: compiled as any other file, with places, and refused with a fix."""

import datetime
import io
import zipfile

import pyarrow
import pyarrow.ipc
import pytest

from tests.json_files import read_lines
from tests.messages import printed_line
from tests.unit.compiler.conftest import as_csv, as_parquet, as_zip, questions

QA = questions(4)


def arrow(table, stream):
    sink = io.BytesIO()
    with (pyarrow.ipc.new_stream if stream else pyarrow.ipc.new_file)(sink, table.schema) as writer:
        writer.write_table(table)
    return sink.getvalue()


def test_each_line_of_a_text_is_a_row(bench):
    source = bench.write("words.txt", "One line.\r\n\n   \nAnother, 二.\nThe last")
    bench.compile("text", source)
    assert bench.values("text.jsonl", "text") == [
        "One line.",
        "Another, 二.",
        "The last",
    ]


def test_a_line_that_is_no_text_has_its_place(bench):
    report = bench.compile("text", bench.write("words.txt", b"One\n\xff\xfe broken\nTwo\n"), reject=True)
    assert bench.codes(report)[0] == ("E001", "words.txt:2") and report.datasets == {"text": 2}


@pytest.mark.parametrize("stream", [True, False])
def test_rows_of_arrow_have_their_places_in_every_batch(bench, stream):
    rows = questions(5000)
    rows[4321]["question"] = " "
    table = pyarrow.Table.from_pylist(rows)
    report = bench.compile("qa", bench.write("data.arrow", arrow(table, stream)), reject=True)
    assert bench.codes(report) == [("E106", "data.arrow row 4322")]
    del rows[4321]
    assert bench.values("qa.json", "output") == [row["answer"] for row in rows]


@pytest.mark.parametrize("stream", [True, False])
def test_an_arrow_file_cut_off_is_a_problem(bench, stream):
    report = bench.compile(
        "qa", bench.write("data.arrow", arrow(pyarrow.Table.from_pylist(QA * 50), stream)[:-700])
    )
    assert "E012" in {code for code, _ in bench.codes(report)} and report.failed


def test_every_data_file_of_an_archive_is_read_with_its_place(bench):
    jsonl = '{"question": "Q8?", "answer": "A8."}\n{"question": "Q9?"}\n'
    data = {"b/two.jsonl": jsonl, "a.csv": as_csv(QA[:2]), "c.parquet": as_parquet(QA[2:]), "LICENSE": "x"}
    report = bench.compile("qa", bench.write("all.zip", as_zip(data)), reject=True)
    assert bench.codes(report)[0] == ("E102", "all.zip/b/two.jsonl:2")
    answers = bench.values("qa.json", "output")
    assert answers == ["A0.", "A1.", "A8.", "A2.", "A3."]


@pytest.mark.parametrize(
    ("content", "code"),
    [(as_zip({"LICENSE": "x"}), "E013"), (b"PK\x03\x04 nothing more", "E004"), (b"", "E004")],
)
def test_an_archive_without_data_or_damaged_is_refused(bench, content, code):
    report = bench.compile("qa", bench.write("all.zip", content))
    assert report.failed and bench.codes(report)[0][0] == code


@pytest.mark.timeout(60)
@pytest.mark.parametrize("name", ["//a.txt", "///", "../a.txt", "a//"])
def test_an_odd_name_in_an_archive_is_no_endless_loop(bench, name):
    """`zipfile.Path` of Python 3.11.7 and before never comes back from such a name (CVE-2024-8088)."""
    report = bench.compile("qa", bench.write("all.zip", as_zip({"a.csv": as_csv(QA[:2]), name: "x"})))
    assert report.kept == 2


def test_a_damaged_member_is_named(bench):
    data = bytearray(as_zip({"a.csv": as_csv(QA * 100)}))
    data[80] ^= 255
    report = bench.compile("qa", bench.write("all.zip", bytes(data)))
    assert report.failed and bench.codes(report)[0][0] in ("E004", "E012")


def test_a_workbook_is_read_by_its_header(bench):
    path = bench.workbook("book.xlsx", [("question", "answer"), ("Q1?", "A1."), (None, None), ("Q2?", None)])
    report = bench.compile("qa", path, reject=True)
    assert bench.codes(report)[0] == ("E103", "book.xlsx row 4") and report.datasets == {"qa": 1}
    path.write_bytes(path.read_bytes()[:900])
    assert bench.compile("qa", path).failed


def test_cells_of_a_workbook_are_json_values(bench):
    asked = datetime.datetime(2026, 1, 2, 3, 4)
    path = bench.workbook("book.xlsx", [("question", "answer", "idx"), ("Q1?", asked, 7.0), ("Q2?", 2.5, 8)])
    spec = bench.folder / "cells.yaml"
    spec.write_text(
        "about: cells\ncolumns: {q: [question], a: {names: [answer], is: any}, idx: {names: [idx], is: id}}\n"
        "write: [{dataset: cells, file: cells.jsonl, format: alpaca, "
        'instruction: "{q}", output: "{a}", keep: [idx]}]'
    )
    bench.compile(spec, path)
    rows = read_lines(bench.out / "cells/cells.jsonl")
    assert [(row["output"], row["idx"]) for row in rows] == [("2026-01-02 03:04:00", 7), ("2.5", 8)]


def test_cells_and_sheets_of_a_workbook_that_no_row_holds_are_said(bench):
    head = ("question", "answer", None)
    rows = (("Q1?", "A1."), ("Q2?", "A2.", 7), ("Q3?", "A3.", None, "x"))
    path = bench.workbook("book.xlsx", [head, *rows], [("question", "answer")])
    report = bench.compile("qa", path, reject=True)
    expected = [("E008", "book.xlsx row 3"), ("E008", "book.xlsx row 4"), ("W224", "book.xlsx")]
    assert bench.codes(report) == expected
    (warning,) = report.problems.warnings
    printed_line(warning.line(), "book.xlsx: W224", "not Sheet1")


def test_a_column_that_an_arrow_file_has_twice_is_a_problem(bench):
    table = pyarrow.table([["a"], ["b"], ["c"]], names=["question", "answer", "answer"])
    report = bench.compile("qa", bench.write("data.arrow", arrow(table, stream=False)))
    assert bench.codes(report) == [("E009", "data.arrow")]


@pytest.mark.parametrize("title", [0, False, "Report"])
def test_a_title_above_the_header_is_not_read_whatever_its_value(bench, title):
    path = bench.workbook(
        "book.xlsx", [(title,), ("question", "answer", "id"), ("Q1?", "A1.", 1), ("Q2?", "A2.", 2)]
    )
    report = bench.compile("qa", path)
    assert report.kept == 2 and any("a title, not read" in note for note in report.problems.notes)


@pytest.mark.parametrize("written", ["A1", "A1:B2"])
def test_rows_beyond_the_dimension_that_a_workbook_names_are_read(bench, written):
    """Some exporters write a dimension that is too small."""
    path = bench.workbook(
        "book.xlsx", [("question", "answer"), *((f"Q{n}?", f"A{n}.") for n in range(9)), ("Q9?",)]
    )
    whole = zipfile.ZipFile(path)
    parts = {name: whole.read(name) for name in whole.namelist()}
    sheet = "xl/worksheets/sheet1.xml"
    assert b'<dimension ref="A1:B11"' in parts[sheet]
    parts[sheet] = parts[sheet].replace(b'"A1:B11"', f'"{written}"'.encode())
    with zipfile.ZipFile(path, "w") as file:
        for name, data in parts.items():
            file.writestr(name, data)
    report = bench.compile("qa", path, reject=True)
    assert (report.read, report.kept, report.rejected) == (10, 9, 1)
