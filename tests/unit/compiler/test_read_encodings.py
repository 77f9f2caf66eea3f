"""Encodings by name, files that are cut off, cells that other readers change: named, counted, or kept."""

import encodings.aliases
import random

import pytest

from tests.messages import raises
from tests.unit.compiler.conftest import ROWS, as_csv, as_parquet, json_lines
from tuneyard.compiler.engine.request import CompileRequest
from tuneyard.compiler.init.command import propose
from tuneyard.compiler.publish.compile import check_dataset
from tuneyard.compiler.spec.load import load_spec
from tuneyard.core.errors import ContentError

SPEC = """
about: a test
source: {encoding: ENCODING}
columns: {q: [q], a: [a], idx: [idx]}
write: [{file: t.jsonl, format: alpaca, instruction: "{q}", output: "{a}", keep: [idx]}]
"""
ENCODINGS = sorted(
    {*encodings.aliases.aliases.values(), "idna", "undefined", "unicode_escape", "oem", "utf_8_sig"}
)
DRAW = random.Random(3)
BYTES = [b"q,a\nx,y\n", b"\xff\xfeq\0,\0a\0", b"q,a\n\x80,\xe4\xbd", b"+2AA-", DRAW.randbytes(999)]


def spec(bench, encoding="utf-8"):
    return bench.write("t.yaml", SPEC.replace("ENCODING", encoding))


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_any_name_of_an_encoding_reads_or_is_refused(bench, encoding):
    try:
        loaded = load_spec(str(spec(bench, encoding)))
    except ContentError as error:
        assert "unknown encoding" in str(error)
        return
    for data in BYTES:
        for name in ("t.csv", "t.json"):
            report = check_dataset(CompileRequest(loaded, sources=(str(bench.write(name, data)),)))
            assert report.failed or report.kept == 1


@pytest.mark.parametrize(
    "encoding",
    ["hex", "rot13"],
)
def test_what_is_no_encoding_of_text_is_refused(bench, encoding):
    with raises(ContentError, "source.encoding"):
        load_spec(str(spec(bench, encoding)))


def test_utf_16_without_a_mark_is_told_what_to_write(bench):
    source = bench.write("t.csv", "q,a\nx,y\n".encode("utf-16-le"))
    report = bench.compile(spec(bench, "utf-16"), source)
    assert report.problems.errors[0].line().endswith("such as `encoding: utf-16-le`")
    assert bench.compile(spec(bench, "utf-16-le"), source).kept == 1


@pytest.mark.parametrize("encoding", ["gb18030", "utf-7", "utf-32"])
def test_a_wrong_name_of_an_encoding_is_not_proposed_again(bench, encoding):
    report = bench.compile(spec(bench, encoding), bench.write("t.csv", b"q,a\nx,\xff\n"))
    assert report.problems.errors[0].line().endswith("such as `encoding: utf-8`")


def test_a_mark_is_dropped_at_the_start_alone(bench, monkeypatch):
    monkeypatch.setattr("tuneyard.compiler.read.stream.BLOCK", 64)  # so that a piece begins with one
    text = "q,a\n" + "x,\ufeffy\n" * 500
    report = bench.compile(spec(bench, "utf-16"), bench.write("t.csv", text.encode("utf-16")))
    assert report.kept == 500
    assert {row["output"] for row in bench.records("t.jsonl")} == {"\ufeffy"}


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("t.jsonl", '{"q": "a", "a": "b"}\n{"q": "你好'),
        ("t.csv", "q,a\na,b\nc,你好"),
        ("t.json", '[{"q": "你好'),
    ],
)
def test_a_file_cut_inside_a_character_is_called_cut_off(bench, name, text):
    problem = bench.compile(spec(bench), bench.write(name, text.encode()[:-1])).problems.errors[0]
    assert "the file is cut off inside a character" in problem.message
    assert "encoding" not in problem.line()


@pytest.mark.parametrize("name", ["t.csv", "t.jsonl"])
def test_every_row_in_a_wrong_encoding_is_counted(bench, name):
    rows = [{"q": f"问题{n}", "a": "答案"} for n in range(300)]
    text = as_csv(rows) if name == "t.csv" else json_lines(rows)
    source = bench.write(name, text.encode("gb18030"))
    report = bench.compile(spec(bench), source)
    assert (report.problems.bad_rows, report.problems.counts_of("E")) == (300, {"E001": 300})


def test_a_line_break_in_a_quoted_field_stays_what_it_is(bench):
    bench.compile(spec(bench), bench.write("t.csv", 'q,a\r\n"one\r\ntwo\nthree","b\r\n"\r\n'))
    assert [(row["instruction"], row["output"]) for row in bench.records("t.jsonl")] == [
        ("one\r\ntwo\nthree", "b\r\n")
    ]


def test_a_blank_row_of_a_single_column_is_counted(bench):
    sheet = "about: a\ncolumns: {q: [q]}\nwrite: [{file: t.jsonl, format: text, text: '{q}'}]"
    report = bench.compile(sheet, bench.write("t.csv", "q\na\n\nb\n"))
    assert (report.read, bench.codes(report)) == (3, [("E106", "t.csv:3")])


@pytest.mark.parametrize("ids", [[-1, -2], [0, 2**61 - 1], [1, 2**61], [2**63, 2**63 + 1]])
def test_different_numbers_are_different_ids(bench, ids):
    rows = [row | {"idx": number} for row, number in zip(ROWS, ids, strict=False)]
    assert bench.compile_rows("rte", rows).problems.warnings == []


@pytest.mark.parametrize("name", ["train.csv", "train.tsv"])
@pytest.mark.parametrize("number", [2**64 - 1, 2**64, 10**20, -(10**19), -(2**63)])
def test_ids_of_a_table_are_numbers_where_all_fit_json_and_texts_otherwise(bench, name, number):
    cells = f"q|a|idx\nx|y|1\nv|w|{number}\n".replace("|", "," if name == "train.csv" else "\t")
    bench.compile(spec(bench), bench.write(name, cells))
    fits = -(2**63) <= number < 2**64
    assert bench.values("t.jsonl", "idx") == ([1, number] if fits else ["1", str(number)])


@pytest.mark.parametrize("number", ["18446744073709551616", '[1, {"k": -99999999999999999999}]', "1e22"])
def test_a_number_that_may_have_lost_digits_is_not_written(bench, number):
    rows = '{"q": "x", "a": 18446744073709551615, "idx": 1}\n{"q": "z", "a": %s, "idx": 2}\n'
    sheet = bench.write("t.yaml", SPEC.replace("ENCODING", "utf-8").replace("[a]", "{names: [a], is: any}"))
    report = bench.compile(sheet, bench.write("t.jsonl", rows % number))
    assert bench.codes(report) == [("E105", "t.jsonl:2")]
    assert "numbers below 2^64" in report.problems.errors[0].line()


def test_a_parquet_name_that_is_no_text_is_a_problem(bench):
    data = as_parquet([{"q": "x", "a": "y", "zzzz": 1}]).replace(b"zzzz", b"z\xff\xffz")
    report = bench.compile(spec(bench), bench.write("t.parquet", data))
    assert report.problems.errors[0].code == "E012"


def test_missing_columns_are_said_once_with_the_nearest_of_many(bench):
    rows = [{f"field_{n}": "x" for n in range(50)} | {"qq": "a", "ansr": "b"}] * 1023
    report = bench.compile(spec(bench), bench.write("t.csv", as_csv(rows)))
    (problem,) = report.problems.errors
    assert (report.read, report.kept, report.dropped) == (1023, 0, {"column missing": 1023})
    assert problem.field == "q, a" and problem.message.startswith('no such columns: found "qq", ')
    assert problem.message.endswith(', … and 42 more, expected "q", and "a"')
    sheet = SPEC.replace("ENCODING", "utf-8").replace("[q]", "[qq]").replace("[a]", "[ansr]")
    report = bench.compile_rows(sheet, [*rows[:2], rows[0] | {"qq": None}])
    assert len(report.problems.errors[0].line()) < 400


@pytest.mark.parametrize(
    ("start", "words"),
    [(b"\x89PNG\r\n\x1a\n", "a picture (PNG)"), (b"PK\x03\x04", ".xlsx"), (b"%PDF-1.4\n", "a PDF")],
)
def test_a_file_of_another_format_is_named_by_its_first_bytes(bench, start: bytes, words: str) -> None:
    source = bench.write("rows.csv", start + bytes(range(256)) * 3)
    (problem,) = bench.compile("qa", source).problems.errors
    assert (problem.code, "encoding:" in problem.hint) == ("E001", False) and words in problem.message
    with raises(ContentError, words):
        propose(source)
