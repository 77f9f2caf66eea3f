"""One JSON document of many rows: what it is taken for, where its rows are, how much memory it takes."""

import gzip
import json
import subprocess
import sys

import pytest

from tests.conftest import ROOT
from tests.messages import printed, printed_line
from tests.unit.compiler.conftest import as_csv, as_parquet, as_zst, error_codes, json_lines, questions
from tuneyard.compiler.init.command import propose
from tuneyard.compiler.read.jsons import read_array
from tuneyard.compiler.read.scan import LINES, Layout, Scanner, layout_of
from tuneyard.compiler.rows.problems import Problems
from tuneyard.compiler.spec.file import Source
from tuneyard.core.errors import ContentError
from tuneyard.core.files.bounded_reading import LARGEST_RECORD

COLUMNS = 'columns: {q: [question], a: [answer, "answers.0.text"], t: {names: [title], is: extra}}'
WRITE = 'write: [{file: t.jsonl, format: alpaca, instruction: "{q}", input: "{t}", output: "{a}"}]\n'
PAIRS = questions(3)
BY_ID = {f"k{n}": row for n, row in enumerate(PAIRS)}
TAGGED = {"meta": {"tags": ["a", "b"], "counts": [1]}, "data": {"items": PAIRS}}
SQUAD = {
    "version": "1.1",
    "data": [
        {
            "title": t,
            "paragraphs": [
                {"qas": [{"question": f"{t}{n}{m}?", "answers": [{"text": f"A{m}"}]} for m in (0, 1)]}
                for n in (0, 1)
            ],
        }
        for t in ("X", "Y")
    ],
}


def spec(bench, source="{}", write=WRITE):
    return bench.write("spec.yaml", f"about: a test\nsource: {source}\n{COLUMNS}\n{write}")


def pairs_of(bench):
    return [(row["instruction"], row["output"]) for row in bench.records("t.jsonl")]


@pytest.mark.parametrize("indent", [None, 1])
@pytest.mark.parametrize(
    ("document", "said"),
    [
        (PAIRS, "a list of rows"),
        ({"version": "1", "data": PAIRS}, 'a list of rows under "data"'),
        ({"data": PAIRS}, 'a list of rows under "data"'),
        ({"meta": {"a": {"b": 1}}, "rows": PAIRS, "more": {"c": [1]}}, 'a list of rows under "rows"'),
        (BY_ID, "an object whose values are the rows"),
        ({**BY_ID, "k1": {**PAIRS[1], "more": [{"x": 1}]}}, "an object whose values are the rows"),
        ({"version": 1, "data": BY_ID}, "an object whose values are the rows under data"),
        (TAGGED, "a list of rows under data.items"),
        ({"data": {"items": PAIRS, "more": {"x": [{"y": 1}]}}}, "a list of rows under data.items"),
    ],
)
def test_a_document_is_read_whole_and_what_it_was_taken_for_is_said(bench, indent, document, said):
    source = bench.write("t.json", json.dumps(document, indent=indent))
    assert f"{source}: read as {said}" in bench.compile(spec(bench), source, limit=1).problems.notes
    report = bench.compile(spec(bench), source)
    assert pairs_of(bench) == [(row["question"], row["answer"]) for row in PAIRS]
    assert f"{source}: read as {said}" in report.problems.notes


@pytest.mark.parametrize("document", [TAGGED, {"version": 1, "data": BY_ID}])
def test_a_document_is_read_alike_if_only_its_beginning_is_looked_at(bench, monkeypatch, document):
    monkeypatch.setattr("tuneyard.compiler.read.jsons.LOOKED_AT", 100)
    source = bench.write("t.json", json.dumps(document))
    assert bench.compile(spec(bench), source).kept == len(PAIRS)


def test_two_lists_of_objects_under_keys_are_not_taken_for_the_rows(bench):
    source = bench.write("t.json", json.dumps({"a": {"x": PAIRS}, "b": {"y": PAIRS}}))
    assert bench.codes(bench.compile(spec(bench), source)) == [("E101", 't.json:1 key "a"')]


def test_lines_in_a_json_are_said_and_a_single_record_is_one(bench):
    talk = {"question": "a", "answer": "b", "turns": [{"role": "user", "content": "c"}], "more": [{"x": 1}]}
    for rows in (PAIRS, PAIRS[:1], [talk]):
        source = bench.write("t.json", json_lines(rows))
        report = bench.compile(spec(bench), source)
        assert report.read == len(rows)
        assert (f"{source}: read as lines, each of them a row" in report.problems.notes) == (len(rows) > 1)


@pytest.mark.parametrize("name", ["t.jsonl", "t.ndjson"])
def test_in_lines_a_line_is_a_row_whatever_its_values_are(bench, name):
    text = "about: a\ncolumns: {q: [q.text], a: [a.text]}\n" + WRITE.replace("{t}", "")
    source = bench.write(name, '{"q": {"text": "Why?"}, "a": {"text": "So."}}\n')
    report = bench.compile(text, source)
    assert (report.read, pairs_of(bench)) == (1, [("Why?", "So.")])


@pytest.mark.parametrize("indent", [None, 1])
def test_a_bad_row_inside_is_named_by_its_path(bench, indent):
    document = json.loads(json.dumps(SQUAD))
    document["data"][1]["paragraphs"][0]["qas"][1]["question"] = 7
    source = bench.write("t.json", json.dumps(document, indent=indent))
    report = bench.compile(spec(bench, "{rows: [data, paragraphs, qas]}"), source, reject=True)
    assert report.problems.errors[0].place.endswith(" data[1].paragraphs[0].qas[1]")
    assert (report.read, report.kept) == (8, 7)


@pytest.mark.parametrize(
    ("document", "rows", "code", "says"),
    [
        ({"train": PAIRS, "test": PAIRS}, "", "E007", 'found 2 lists of objects: "train", "test"'),
        ({"data": PAIRS}, "{rows: rows}", "E007", 'no key "rows" (keys: "data")'),
        ({"data": 3}, "{rows: data}", "E007", "data: found 3, expected a list"),
        ({"data": [{"x": 1}]}, "{rows: [data, qas]}", "E005", 'no key "qas" (keys: "x")'),
        ({"data": [7]}, "{rows: data}", "E005", 'found 7, expected an object, such as {"question"'),
        ('{"data": [], "data": []}', "{rows: data}", "E006", 'duplicate key "data"'),
        ('{"a": NaN, "data": []}', "{rows: data}", "E002", "found NaN"),
        ('{"data": [{"question": "a", "answer": "b", "answer": "c"}]}', "", "E006", 'duplicate key "answer"'),
        ('{"data": [{"question": "a"', "{rows: data}", "E003", "cut off inside a record"),
        ('{"a": ' * 3000, "{rows: data}", "E003", "nested too deep"),
        ('[{"question": "a", "answer": "b"}] ["more"]', "", "E003", "more text after the document's end"),
    ],
)
def test_a_document_whose_rows_cannot_be_told_is_refused(bench, document, rows, code, says):
    text = document if isinstance(document, str) else json.dumps(document)
    report = bench.compile(spec(bench, rows or "{}"), bench.write("t.json", text))
    assert error_codes(report) == [code]
    assert says in report.problems.errors[0].message
    assert code != "E007" or not any("read as" in note for note in report.problems.notes)


def test_a_second_list_far_below_is_found_too(bench, monkeypatch):
    monkeypatch.setattr("tuneyard.compiler.read.jsons.LOOKED_AT", 100)
    text = json.dumps({"train": PAIRS * 100, "test": PAIRS})
    report = bench.compile(spec(bench), bench.write("t.json", text))
    printed(report.problems.errors[-1].message, "2", '"train", "test"')


def test_rows_by_split_come_from_one_file(bench):
    rows = "{splits: {train: [train], test: [dev]}, rows: {train: train, test: [x, dev]}}"
    sheet = spec(bench, rows, WRITE.replace("t.jsonl", '"{split}.jsonl"'))
    source = bench.write("t.json", json.dumps({"x": {"dev": PAIRS[:1]}, "train": PAIRS[1:]}))
    report = bench.compile(sheet, source)
    assert (report.read, len(bench.records("train.jsonl")), len(bench.records("test.jsonl"))) == (3, 2, 1)


def test_a_path_into_lines_is_refused(bench):
    report = bench.compile_rows(spec(bench, "{rows: data}"), PAIRS)
    assert bench.codes(report)[0] == ("E007", "train.jsonl:1")


def test_fields_after_the_list_are_said_not_to_be_kept(bench):
    source = bench.write("t.json", json.dumps({"data": PAIRS, "version": 1}))
    printed_line("\n".join(bench.compile(spec(bench), source).problems.notes), source, "version")


ROW = '{"question": "%s", "answer": "b"}' % ("why " * 1000)
MANY = 12_500
UNCLOSED = 'question,answer\n"never closed,b\n' + "a line of some words,b\n" * 2_000_000
LARGE = {
    "object.json": lambda: "{" + ",".join(f'"{n}":{ROW}' for n in range(MANY)) + "}",
    "wrapped.json": lambda: '{"data":[' + ",".join([ROW] * MANY) + '],"version":1}',
    "bomb.jsonl.gz": lambda: gzip.compress(b'{"question": "' + b"a" * (3 * LARGEST_RECORD), 1),
    "bomb.json.zst": lambda: as_zst(b'[{"question": "' + b"a" * (20 * LARGEST_RECORD)),
    "unclosed.csv": lambda: UNCLOSED,
    "wide.csv": lambda: "question,answer\n" + f"{'w' * 100_000},b\n" * 400,
    "long.parquet": lambda: as_parquet(
        [{"question": f"{n}" + "w" * 200_000, "answer": "b"} for n in range(120)]
    ),
}


PEAK = """
import sys, pathlib
from tuneyard.compiler.cli import cli
from tuneyard.core.cli.run import run_command
try:
    run_command(cli)
finally:
    print(pathlib.Path("/proc/self/status").read_text().split("VmHWM:")[1].split()[0])
"""
TOO_LARGE = ("bomb.jsonl.gz", "bomb.json.zst", "unclosed.csv")


@pytest.mark.skipif(sys.platform != "linux", reason="reads the peak from /proc")
@pytest.mark.slow
def test_a_compile_keeps_few_bytes_of_each_row(bench):
    peaks = []
    for rows in (1_000_000, 4_000_000):
        line = '{"premise": "%d", "hypothesis": "so", "label": %d, "idx": %d}\n'
        source = bench.write(f"{rows}.jsonl", "".join(line % (row, row % 3, row) for row in range(rows)))
        command = [sys.executable, "-c", PEAK, "compile", "mnli", "--source", f"train={source}"]
        command += ["--out", bench.folder / f"{rows}", "--workers", "1"]
        done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=True)
        peaks.append(int(done.stdout.split()[-1]))
    assert 1024 * (peaks[1] - peaks[0]) <= 40 * 3_000_000


@pytest.mark.skipif(sys.platform != "linux", reason="reads the peak from /proc")
@pytest.mark.slow
@pytest.mark.parametrize("name", LARGE)
def test_memory_is_bounded_whatever_the_layout(bench, name):
    sheet, source = spec(bench), bench.write(name, LARGE[name]())
    command = [sys.executable, "-c", PEAK, "check", sheet, "--source", source]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=False)
    # in kB; a process that reads a small file takes 66 MB, pyarrow 80 MB more
    allowed = {".json": 100_000, ".parquet": 250_000}.get(source.suffix, 150_000)
    assert int(done.stdout.split()[-1]) < allowed, done.stderr
    assert done.returncode == (name in TOO_LARGE), done.stderr
    if name in TOO_LARGE:
        printed_line(done.stderr, source, "E014", "16 MiB")
    else:
        assert "E014" not in done.stderr


@pytest.mark.parametrize("size", [1, 2, 7, 1000])
def test_a_path_leads_through_nested_lists_wherever_the_document_is_cut(bench, monkeypatch, size):
    """Rows keep the fields around them, also those of a document that is read in one piece."""
    monkeypatch.setattr("tuneyard.compiler.read.jsons.LOOKED_AT", size)
    monkeypatch.setattr("tuneyard.compiler.read.stream.BLOCK", size)
    text = json.dumps({"é\\": ["]}", {"[": '{"'}], **SQUAD}, indent=size % 2 or None, ensure_ascii=False)
    report = bench.compile(spec(bench, "{rows: [data, paragraphs, qas]}"), bench.write("t.json", text))
    expected = [(f"{t}{n}{m}?", t, f"A{m}") for t in "XY" for n in (0, 1) for m in (0, 1)]
    found = [(row["instruction"], row["input"], row["output"]) for row in bench.records("t.jsonl")]
    assert (report.read, found) == (8, expected)


@pytest.mark.parametrize("size", [1, 7, 1000])
@pytest.mark.parametrize(
    ("text", "place"),
    [
        ('[{"a": 1}, {"b": 2}, {"c": x}, {}]', "line 1 column 28"),
        ('[{"a": 1},\n {"b": 2}, {"c": x}, {}]', "line 2 column 18"),
        ('[{"a": 1}, {"b": 2}, {"c":\n x}, {}]', "line 2 column 2"),
    ],
)
def test_broken_json_is_named_by_its_line_and_column(bench, monkeypatch, size, text, place):
    monkeypatch.setattr("tuneyard.compiler.read.stream.BLOCK", size)
    report = bench.compile("qa", bench.write("t.json", text))
    assert any(f"broken JSON at {place}: " in problem.message for problem in report.problems.errors)


@pytest.mark.parametrize(("rows", "size"), [(2, 1 << 20), (100, 40)])
def test_rows_of_a_list_come_in_blocks_bounded_by_rows_and_by_bytes(monkeypatch, rows, size):
    monkeypatch.setattr("tuneyard.compiler.read.jsons.BATCH", rows)
    monkeypatch.setattr("tuneyard.compiler.read.jsons.BATCH_BYTES", size)
    text = json.dumps([{"n": number} for number in range(20)])  # of 10 bytes and a blank each
    scanner = Scanner((text[at : at + 1].encode() for at in range(len(text))), 1)
    blocks = [len(block.rows) for block in read_array(scanner, "t", (), False, Problems(), Source())]
    assert sum(blocks) == 20 and 1 < max(blocks) <= 5


def compact(rows: list) -> str:
    return json.dumps(rows, separators=(",", ":"))


ALIKE = [{"n": n, "t": f"a: {n}"} for n in range(9)]
ARRAYS = {
    "one a line": "[\n" + ",\n".join(json.dumps(row) for row in ALIKE) + "\n]\n",
    "one line": json.dumps(ALIKE),
    "compact": compact(ALIKE),
    "indented": json.dumps(ALIKE, indent=4),
    "indented by nothing": json.dumps([{"n": [{"n": n}, {"n": 0}]} for n in range(9)], indent=0),
    "with the row's separator inside": compact([{"n": 1, "in": [{"n": 2}, {"n": 3}]}] * 5),
    "talks": json.dumps([{"c": [{"from": "a", "value": "b"}] * 3} for _ in range(9)]),
    "other first keys": json.dumps(
        [{"a": 1, "b": 2}, {"a": 1}, {"b": 1, "a": 2}, {"a": 3}, {"b": 4}, {"a": 5}]
    ),
    "no rows among them": json.dumps([*ALIKE[:4], None, *ALIKE[4:], [1], "}, {"]),
    "a repeated key": compact(ALIKE)[:-1] + ',{"n":1,"n":2},{"n":3}]',
    "a repeated key inside": '[{"n":1},{"n":{"a":1,"a":2}},{"n":3}]',
    "a repeated key after blanks": '[{"n":1},\n{"n":1,"n"\n:2},\n{"n":3}]',
    "a repeated key and an escaped colon": '[{"n":"a"},\n{"n":"\\u003a","n":"\\u003A"},\n{"n":3}]',
    "half a character": '[{"n":1},\n{"n":"\\ud800"},\n{"n":3},\n{"n":4}]',
    "not a number": '[{"n":1},\n{"n":NaN},\n{"n":3}]',
    "large numbers": f'[{{"n":{2**70}}},\n{{"n":{2**63}}},\n{{"n":1e400}},\n{{"n":-0}}]',
    "cut off": '[{"n":1},\n{"n":2},\n{"n":3},\n{"n":',
    "a comma too many": '[{"n":1},\n{"n":2},\n{"n":3},\n]',
    "a comma too few": '[{"n":1},\n{"n":2}\n{"n":3},\n{"n":4}]',
    "a control character between": '[{"n":1},\n{"n":2}\0{"n":3},\n{"n":4}]',
    "broken inside": '[{"n":1},\n{"n":2},\n{"n":x},\n{"n":4}]',
    "two on a line": '[{"n":1},\n{"n":2},\n{"n":3}, {"n":4},\n{"n":5},\n{"n":6}]',
    "texts over lines": '[{"n":\n1},\n{"n":2\n},\n{"n":3},\n\n{"n":4},\n{\n"n":5}]',
    "wrapped": json.dumps({"version": 1, "meta": {"a": 1}, "data": ALIKE, "later": 2}),
    "wrapped and indented": json.dumps({"meta": [{"a": 1}, {"a": 2}], "data": ALIKE}, indent=2),
}


class OneByOne(Scanner):
    """A scanner that reads every row alone."""

    def objects(self) -> tuple[list[int], list[dict[str, object]]]:
        return [], []


@pytest.mark.parametrize("size", [1, 7, 50, 1 << 20])
@pytest.mark.parametrize("name", ARRAYS)
def test_rows_that_are_read_many_at_once_are_those_that_are_read_one_by_one(name, size):
    data = ARRAYS[name].encode()
    steps = ("data",) if data.startswith(b"{") else ()
    results = []
    for kind in (Scanner, OneByOne):
        problems = Problems()
        scanner = kind((data[at : at + size] for at in range(0, len(data), size)), 3)
        blocks = list(read_array(scanner, "t", steps, False, problems, Source()))
        rows = [
            (block.location(at), repr(block.rows[at])) for block in blocks for at in range(len(block.rows))
        ]
        results.append((rows, problems.errors, problems.notes))
    assert results[0] == results[1]


def test_rows_without_anything_odd_are_read_many_at_once(monkeypatch):
    """One by one they would take three times the CPU seconds."""
    read_singly = []
    row = Scanner.row
    monkeypatch.setattr(Scanner, "row", lambda scanner: read_singly.append(1) or row(scanner))
    for name in ("one a line", "one line", "compact", "indented", "texts over lines"):
        read_singly.clear()
        list(read_array(Scanner([ARRAYS[name].encode()], 1), "t", (), False, Problems(), Source()))
        assert len(read_singly) == 1, name  # the last one, which no comma follows


def test_a_part_of_a_mixture_says_how_its_own_file_is_read(bench):
    part = bench.write("part.yaml", f"about: a\n{COLUMNS}\n{WRITE}")
    source = bench.write("t.json", json.dumps({"data": PAIRS, "more": PAIRS}))
    parts = f"{{one: {{share: 1, as: {part}, source: {{files: {source}, rows: data}}}}}}"
    sheet = f"about: a\nmix: {{total: 3, parts: {parts}}}\n{WRITE}"
    report = bench.compile(sheet)
    assert report.read == 3 and "one: 3 rows of 3 wanted" in report.problems.notes


def test_a_cell_may_be_longer_than_pythons_own_bound(bench):
    long = "a long, long text; " * 10_000
    report = bench.compile("qa", bench.write("qa.csv", as_csv([{"question": long, "answer": "b"}])))
    assert (report.kept, report.problems.errors) == (1, [])


def test_a_compressed_file_with_wrong_bytes_inside_is_damaged_and_not_cut(bench):
    whole = bytearray(
        as_zst(b"".join(b'{"question": "%d", "answer": "%d"}\n' % (n, n * n) for n in range(5000)))
    )
    whole[len(whole) // 2 : len(whole) // 2 + 200] = bytes(200)
    report = bench.compile("qa", bench.write("rows.jsonl.zst", bytes(whole)))
    assert "the compressed file is damaged" in str(report.problems.errors[0].message)


def test_lists_of_the_objects_around_a_row_are_kept_or_named(bench):
    inner = {"tools": ["f"], "qas": [{"question": "a", "answer": "b"}]}
    source = bench.write("t.json", json.dumps({"images": ["x"], "data": [inner], "choices": {"a": 1}}))
    report = bench.compile(spec(bench, "{rows: [data, qas]}"), source)
    assert report.unused.rows == {"tools": 1}
    assert error_codes(report) == ["E108"]
    printed_line("\n".join(report.problems.notes), source, "images", "choices")


def test_a_record_is_measured_from_where_it_begins(monkeypatch):
    """What was walked over before it, in the same piece of the file, does not count."""
    monkeypatch.setattr("tuneyard.compiler.read.scan.LARGEST_RECORD", 130)
    scanner = Scanner([b'["' + b"a" * 100 + b'","' + b"b" * 60, b'"]'], 1)
    scanner.next_sign()
    assert [len(str(scanner.value())) for _ in scanner.items("]")] == [100, 60]


def test_a_row_of_many_short_fields_ends_at_the_limit(bench, monkeypatch):
    monkeypatch.setattr("tuneyard.compiler.read.tables.LARGEST_RECORD", 200)
    text = "question,answer\n" + '"a\n",' * 100
    report = bench.compile("qa", bench.write("t.csv", text))
    assert bench.codes(report) == [("E014", "t.csv:2")]


def test_a_line_beyond_the_limit_in_a_tsv_is_named_and_nothing_is_published(bench, monkeypatch):
    """A .tsv is read without quotes, line by line."""
    monkeypatch.setattr("tuneyard.compiler.read.stream.LARGEST_RECORD", 200)
    monkeypatch.setattr("tuneyard.compiler.read.stream.BLOCK", 50)
    rows = ["question\tanswer", "Why?\tSo.", f"How {'long ' * 60}?\tThus.", "When?\tNow."]
    report = bench.compile("qa", bench.write("t.tsv", "\n".join(rows) + "\n"))
    assert bench.codes(report) == [("E014", "t.tsv:3")]
    assert report.failed and not bench.out.exists()


@pytest.mark.parametrize(
    ("head", "whole", "layout"),
    [
        (b'{\n  "text": "a text that goes on', False, Layout((), "")),
        (b'{"text": "a text that goes on', False, LINES),
        (b'{\n  "text": "short"\n}', True, Layout((), "")),
        (b'{"q": "a", "a": "b", "notes": {"x": {"n": 1}, "y": {"n": 2}}}', True, LINES),
    ],
)
def test_a_first_value_that_is_cut_off_tells_a_document_from_lines(head, whole, layout):
    """A document that is written over several lines is one, however long its first value is."""
    assert layout_of(head, whole) == layout


KEYS = ["answer", "问", 'a "b"', "duplicate key", "{key}", ""]


@pytest.mark.parametrize("key", KEYS)
def test_a_duplicate_key_of_a_line_is_its_field(bench, key):
    """At the top of the row, and inside of a value."""
    name = json.dumps(key, ensure_ascii=False)
    twice = f"{{{name}: 1, {name}: 2}}"
    lines = [f'{{"question": "a", "answer": "b", {twice[1:]}', f'{{"question": "a", "x": [{twice}]}}']
    report = bench.compile("qa", bench.write("k.jsonl", "\n".join(lines)))
    problems = [(problem.code, problem.field, str(problem.message)) for problem in report.problems.errors]
    assert problems == [("E006", key, "duplicate key")] * 2


@pytest.mark.parametrize("key", KEYS)
def test_a_duplicate_key_of_a_document_is_named(bench, key):
    """By a compile, and by `data init`, which reads the document without a spec."""
    name = json.dumps(key, ensure_ascii=False)
    source = bench.write("k.json", f"[{{{name}: 1, {name}: 2}}]")
    problem = bench.compile("qa", source).problems.errors[0]
    assert (problem.code, problem.message) == ("E006", f"duplicate key {name}")
    with pytest.raises(ContentError) as error:
        propose(source, 0)
    assert str(error.value).endswith(f"E006: duplicate key {name}")
