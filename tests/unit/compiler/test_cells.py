"""Excel: dates as the sheet shows them, and cells that look filled and have no value."""

import time as clock
import zipfile
from datetime import date, datetime, time, timedelta
from pathlib import Path

import pytest

from tests.unit.compiler.conftest import error_codes
from tuneyard.compiler.read.cells import text_of_time

SHEET = "xl/worksheets/sheet1.xml"
SPEC = """
about: a table
columns: {question: [q], answer: {names: [a], is: answer}, when: {names: [when], is: extra}}
write:
  - {dataset: s, file: s.jsonl, format: alpaca, instruction: "{question}", output: "{answer}", keep: [when]}
"""


@pytest.mark.parametrize(
    ("value", "number_format", "text"),
    [
        (datetime(2024, 1, 5), "yyyy-mm-dd", "2024-01-05"),
        (datetime(2024, 1, 5), "mm-dd-yy", "2024-01-05"),
        (datetime(2024, 1, 5), '[$-409]d" de "mmmm;@', "2024-01-05"),
        (datetime(2024, 1, 5), 'yyyy"年"m"月"d"日"', "2024-01-05"),
        (datetime(2024, 1, 5), '"shown"d/m/yyyy', "2024-01-05"),
        (datetime(2024, 1, 5, 9, 30), "yyyy-mm-dd h:mm", "2024-01-05 09:30:00"),
        (datetime(2024, 1, 5), "yyyy-mm-dd hh:mm:ss", "2024-01-05 00:00:00"),
        (datetime(2024, 1, 5, 9, 30), "m/d/yy", "2024-01-05"),
        (date(2024, 1, 5), "d-mmm-yy", "2024-01-05"),
        (time(9, 30), "h:mm", "09:30:00"),
        (timedelta(hours=26, minutes=5), "[h]:mm:ss", "26:05:00"),
        (timedelta(days=3), "[hh]:mm", "72:00:00"),
        (timedelta(seconds=90), "[mm]:ss", "00:01:30"),
        (-timedelta(minutes=5), "[h]:mm", "-00:05:00"),
    ],
)
def test_a_date_is_read_as_the_sheet_shows_it(value, number_format, text):
    assert text_of_time(value, number_format) == text


def test_dates_and_times_of_a_workbook(bench):
    openpyxl = pytest.importorskip("openpyxl")
    book = openpyxl.Workbook()
    book.active.append(["q", "a", "when"])
    cells = [
        (datetime(2024, 1, 5), "yyyy-mm-dd"),
        (datetime(2024, 1, 5, 14), "yyyy-mm-dd hh:mm"),
        (timedelta(hours=30), "[h]:mm:ss"),
        (time(8, 15), "hh:mm"),
    ]
    for row, (value, number_format) in enumerate(cells, 2):
        book.active.append([f"Q{row}?", "yes", value])
        book.active.cell(row, 3).number_format = number_format
    book.save(bench.folder / "t.xlsx")
    report = bench.compile(SPEC, bench.folder / "t.xlsx")
    assert not report.problems.errors
    texts = ["2024-01-05", "2024-01-05 14:00:00", "30:00:00", "08:15:00"]
    assert bench.values("s.jsonl", "when") == texts


def workbook(bench, change) -> Path:
    openpyxl = pytest.importorskip("openpyxl")
    book = openpyxl.Workbook()
    book.active.append(["q", "a", "when", "url"])
    for row in range(2, 6):
        book.active.append([f"Q{row}?", f"A{row}.", f"W{row}", "u"])
    change(book.active)
    path: Path = bench.folder / "t.xlsx"
    book.save(path)
    return path


@pytest.mark.parametrize(("column", "field"), [("A", "q (question)"), ("B", "a (answer)"), ("C", "when")])
@pytest.mark.parametrize("cause", ["formula", "merged"])
def test_a_cell_that_looks_filled_is_refused_with_its_cause(bench, column, field, cause):
    def change(sheet) -> None:
        if cause == "merged":
            sheet.merge_cells(f"{column}3:{column}4")
        else:
            sheet[f"{column}4"] = '=D4&"x"'

    report = bench.compile(SPEC, workbook(bench, change))
    (problem,) = report.problems.errors
    assert (problem.code, problem.field) == ("E103", field) and problem.place.endswith("t.xlsx row 4")
    expected = f"merged cell {column}3:{column}4" if cause == "merged" else "formula without a computed value"
    assert expected in problem.message
    assert ("unmerge" if cause == "merged" else "Excel or LibreOffice") in problem.hint


@pytest.mark.parametrize("error", ["#N/A", "#REF!", "#DIV/0!", "#NAME?", "#VALUE!"])
@pytest.mark.parametrize(("column", "field"), [("A", "q (question)"), ("B", "a (answer)"), ("C", "when")])
def test_an_error_value_is_no_text(bench, error, column, field):
    def change(sheet) -> None:
        sheet[f"{column}4"] = error  # openpyxl takes the names of errors for errors
        sheet["D3"] = error  # nothing uses this one

    report = bench.compile(SPEC, workbook(bench, change))
    (problem,) = report.problems.errors
    assert (problem.code, problem.field) == ("E103", field) and problem.place.endswith("t.xlsx row 4")
    assert f"the error value {error}" in problem.message and "correct its formula" in problem.hint


def test_the_name_of_an_error_as_a_text_stays(bench):
    def change(sheet) -> None:
        sheet["B4"] = "#N/A"
        sheet["B4"].data_type = "s"

    report = bench.compile(SPEC, workbook(bench, change))
    assert not report.problems.errors
    assert bench.values("s.jsonl", "output") == ["A2.", "A3.", "#N/A", "A5."]


def test_rows_and_columns_of_a_merged_cell_are_all_named(bench):
    report = bench.compile(SPEC, workbook(bench, lambda sheet: sheet.merge_cells("B2:C5")))
    fields = [(problem.place.rpartition(" ")[2], problem.field) for problem in report.problems.errors]
    assert fields == [("2", "when"), *[(row, name) for row in "345" for name in ("a (answer)", "when")]]


def test_such_cells_in_a_column_that_nothing_uses_and_empty_cells_are_no_problem(bench):
    def change(sheet) -> None:
        sheet.merge_cells("D2:D4")
        sheet["D5"] = "=A5"
        sheet["C3"] = None

    report = bench.compile(SPEC, workbook(bench, change))
    assert not report.problems.errors
    assert bench.values("s.jsonl", "when") == ["W2", "", "W4", "W5"]


def sheet_of(path: Path) -> bytes:
    with zipfile.ZipFile(path) as archive:
        return archive.read(SHEET)


def with_sheet(path: Path, sheet: bytes) -> None:
    """Write a workbook again with another sheet."""
    with zipfile.ZipFile(path) as archive:
        files = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in (files | {SHEET: sheet}).items():
            archive.writestr(name, data)


def test_a_text_that_a_formula_computed_as_empty_is_empty(bench):
    """Excel writes `=IF(A1="","",A1)` as a text without characters."""
    path = workbook(bench, lambda sheet: sheet.__setitem__("C3", "=A3"))
    sheet = sheet_of(path)
    assert b'<c r="C3"><f>A3</f><v /></c>' in sheet or b'<c r="C3"><f>A3</f><v></v></c>' in sheet
    for empty in (b"<v />", b"<v></v>"):
        sheet = sheet.replace(b'<c r="C3"><f>A3</f>' + empty, b'<c r="C3" t="str"><f>A3</f>' + empty)
    with_sheet(path, sheet)
    report = bench.compile(SPEC, path)
    assert not error_codes(report) and bench.values("s.jsonl", "when")[1] == ""


def test_a_merged_cell_as_large_as_a_sheet_takes_no_time(bench):
    path = workbook(bench, lambda sheet: sheet.merge_cells("C4:C5"))
    with_sheet(path, sheet_of(path).replace(b'"C4:C5"', b'"C4:XFD1048576"'))
    began = clock.process_time()
    report = bench.compile(SPEC, path)
    assert clock.process_time() - began < 5
    assert [problem.place.rpartition(" ")[2] for problem in report.problems.errors] == ["5"]
