"""`--limit N`: the first N rows of each split that can be read."""

import json

import pytest

from tests.unit.compiler.conftest import as_zip
from tuneyard.compiler.read import jsons, stream
from tuneyard.compiler.rows.problems import Problems

SPEC = """
about: a test
columns: {question: [question], answer: {names: [answer], is: answer}}
write: [{dataset: t, file: t.jsonl, format: alpaca, instruction: "{question}", output: "{answer}"}]
"""
UNREADABLE = {2, 3, 11, 12, 13, 14, 15, 16, 29}  # numbers of rows, from 0
ROWS = 30


def objects(number):
    if number in UNREADABLE:
        return '{"question": "a key", "question": "twice"}'
    return json.dumps({"question": f"q {number}", "answer": "a"})


def cells(number, delimiter):
    return delimiter.join(["q", "a", "too many"] if number in UNREADABLE else [f"q {number}", "a"])


def lines(start, stop):
    return "".join(f"{objects(number)}\n" for number in range(start, stop))


FILES = {
    "a.jsonl": lambda: lines(0, ROWS),
    "a.zip": lambda: as_zip(
        {"a.jsonl": lines(0, 11), "b.jsonl": lines(11, 17), "c.jsonl": lines(17, ROWS)}
    ),  # none of b can be read
    "a.json": lambda: "[" + ",\n".join(map(objects, range(ROWS))) + "]",
    "a.csv": lambda: "question,answer\n" + "".join(f"{cells(number, ',')}\n" for number in range(ROWS)),
}


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch) -> None:
    """A file of thirty rows has several."""
    monkeypatch.setattr(stream, "BLOCK", 200)
    monkeypatch.setattr(jsons, "LOOKED_AT", 200)
    monkeypatch.setattr(jsons, "BATCH", 5)


@pytest.mark.parametrize("name", list(FILES))
def test_so_many_good_rows_are_kept_and_every_bad_row_that_was_read_is_counted(bench, name):
    source, spec = bench.write(name, FILES[name]()), bench.write("t.yaml", SPEC)
    readable = [number for number in range(ROWS) if number not in UNREADABLE]
    for limit in (1, 2, 7, len(readable)):
        report = bench.compile(spec, source, limit=limit, reject=True, force=True)
        assert (report.kept, report.read) == (limit, limit + report.rejected)
        records = bench.values("t.jsonl", "instruction")
        assert records == [f"q {number}" for number in readable[:limit]]


def test_a_limit_is_of_all_files_of_a_split(bench):
    for name in ("a", "b", "c"):
        bench.write(f"data/{name}.jsonl", FILES["a.jsonl"]())
    readable = ROWS - len(UNREADABLE)
    report = bench.compile(SPEC, bench.folder / "data", limit=readable + 4, reject=True)
    assert (report.kept, report.read) == (readable + 4, readable + 4 + report.rejected)
    unreadable_only = bench.write("bad.jsonl", "{x\n" * 9)
    report = bench.compile(SPEC, unreadable_only, limit=5, reject=True, force=True)
    assert (report.read, report.kept, report.rejected) == (9, 0, 9)


@pytest.mark.parametrize("name", list(FILES))
def test_memory_holds_a_block_of_unreadable_rows(bench, monkeypatch, name):
    """Each keeps its text until its batch ends. In a file without any other row that was all of them."""
    monkeypatch.setitem(globals(), "UNREADABLE", {*UNREADABLE, *range(ROWS, ROWS + 2000)})
    monkeypatch.setitem(globals(), "ROWS", ROWS + 2000)
    held = []
    end_batch = Problems.end_batch

    def count_and_end(problems):
        held.append(len(problems._batch))
        end_batch(problems)

    monkeypatch.setattr(Problems, "end_batch", count_and_end)
    report = bench.compile(SPEC, bench.write(name, FILES[name]()), reject=True)
    assert report.rejected == len(UNREADABLE) and max(held) < 200
