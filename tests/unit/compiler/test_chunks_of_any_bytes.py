"""Chunks of files that nobody wrote on purpose: any lines, ends of lines, bytes and sizes of blocks.

Whatever hypothesis makes of them, a compile in chunks leaves and says what one process does.
"""

import csv
import io
import json
import tempfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.unit.compiler.conftest import Bench, as_parquet
from tests.unit.compiler.test_chunks import SPECS, Ahead, as_arrow, outcome
from tuneyard.compiler import chunked_reading, compile, pipeline
from tuneyard.compiler.compile import check_spec, compile_spec
from tuneyard.compiler.read import jsons, parquet, stream

TEXTS = st.sampled_from(
    ["a cat sat", "two dogs ran", "三个苹果 😀", "caf\u00e9 \u2028 x", "", " ", "word " * 90]
)
LABELS = st.sampled_from([0, 1, 1, 0, -1, 7, "0", None])
ROWS = st.fixed_dictionaries(
    {"question": TEXTS, "answer": TEXTS, "label": LABELS},
    optional={
        "idx": st.integers(0, 9),
        "kind": st.sampled_from(["k0", "k1", 5]),
        "url": st.just("http://x"),
        "weight": st.sampled_from([0, 1]),
        "q": TEXTS,
        "Answer": TEXTS,
    },
)
BAD_LINES = st.sampled_from(
    [
        b"",
        b"   ",
        b"\t",
        b"\r",
        b"{",
        b"[1]",
        b"7",
        b"null",
        b'{"a":1,"a":2}',
        b'{"question":"q \xff","answer":"a","label":1}',
        b'{"question":"\xe4\xb8","answer":"a","label":1}',
        b'{"question":"\\ud800","answer":"a","label":1}',
        b'\xef\xbb\xbf{"question":"q","answer":"a","label":1}',
        b'{"question":"nul \x00","answer":"a","label":1}',
        b'{"question":NaN,"answer":"a","label":1}',
        b"\xff\xfe\x00",
        b'"quoted, ""twice""",a,1',
        b'"open, a,1',
        b"a\tb\tc\td\te",
        b"x" * 700,
    ]
)
pytestmark = pytest.mark.slow
ENDS = st.sampled_from([b"\n", b"\n", b"\n", b"\r\n", b"\n\n"])
ROOM = settings(
    max_examples=100,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.large_base_example],
)


@st.composite
def sizes(draw):
    """Bytes of a block and of a chunk, and how many results wait for the first of them."""
    block = draw(st.sampled_from([16, 64, 200, 1000]))
    return block, draw(st.sampled_from([1, 100, 300, 2000])), draw(st.integers(0, 5))


@st.composite
def lines_of_any_kind(draw, as_line):
    """A file of good and bad lines with any ends, maybe with a byte-order mark and without a last end."""
    good = ROWS.map(as_line)
    lines = draw(st.lists(st.one_of(good, good, good, BAD_LINES), min_size=1, max_size=40))
    repeats = draw(st.lists(st.sampled_from(lines), max_size=10))
    data = draw(st.sampled_from([b"", b"", b"\xef\xbb\xbf"]))
    for line in [*lines, *repeats]:
        data += line + draw(ENDS)
    return data if draw(st.booleans()) else data.rstrip(b"\r\n")


def as_json(row):
    return json.dumps(row, ensure_ascii=False).encode()


COLUMNS = ("question", "answer", "label", "kind", "url")


def as_tsv(row):
    cells = [" ".join(str(row.get(name, "")).split()) for name in COLUMNS]
    return "\t".join(cells).encode()


def as_csv(row):
    text = io.StringIO()
    csv.writer(text, lineterminator="").writerow([row.get(name, "") for name in COLUMNS])
    return text.getvalue().encode()


OPTIONS = st.fixed_dictionaries(
    {"reject": st.booleans(), "every_problem": st.booleans(), "strict": st.booleans()}
)


def assert_chunks_change_nothing(name, files, spec, sizes_drawn, options):
    """Compile and check files in one process and in chunks, in a folder of their own."""
    block, chunk, ahead = sizes_drawn
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        bench = Bench(Path(folder))
        for number, data in enumerate(files):
            bench.write(f"data/{number}.{name}", data)
        spec_file = bench.write("t.yaml", SPECS[spec])
        patch.setattr(stream, "BLOCK", block)
        patch.setattr(jsons, "LOOKED_AT", 2 * block)
        patch.setattr(parquet, "BATCH", max(block // 64, 1))
        patch.setattr(chunked_reading, "CHUNK", chunk)
        patch.setattr(pipeline, "ARRANGED", max(chunk // 64, 1))
        for run in (compile_spec, check_spec):
            alone = outcome(bench, run, spec_file, [bench.folder / "data"], **options)
            with patch.context() as inner:
                inner.setattr(compile, "executor_for", lambda *_: Ahead(ahead))
                in_chunks = outcome(bench, run, spec_file, [bench.folder / "data"], **options)
            assert in_chunks == alone


@pytest.mark.parametrize("name", ["jsonl", "tsv", "csv"])
@ROOM
@given(data=st.data(), spec=st.sampled_from(list(SPECS)), sizes_drawn=sizes(), options=OPTIONS)
def test_lines_of_any_kind(name, data, spec, sizes_drawn, options):
    as_line = {"jsonl": as_json, "tsv": as_tsv, "csv": as_csv}[name]
    files = data.draw(st.lists(lines_of_any_kind(as_line), min_size=1, max_size=3))
    if name != "jsonl":
        header = {"tsv": b"\t", "csv": b","}[name].join(column.encode() for column in COLUMNS)
        files = [header + b"\n" + lines for lines in files]
    assert_chunks_change_nothing(name, files, spec, sizes_drawn, options)


@pytest.mark.parametrize("name", ["parquet", "arrow"])
@ROOM
@given(data=st.data(), spec=st.sampled_from(list(SPECS)), sizes_drawn=sizes(), options=OPTIONS)
def test_row_groups_of_any_size(name, data, spec, sizes_drawn, options):
    files = []
    for _ in range(data.draw(st.integers(1, 3))):
        rows = data.draw(st.lists(ROWS, min_size=1, max_size=30))
        columns = {column: [row.get(column) for row in rows] for column in COLUMNS}
        columns["label"] = [None if label is None else int(label) for label in columns["label"]]
        columns["kind"] = [None if kind is None else str(kind) for kind in columns["kind"]]
        sound = [dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)]
        group = data.draw(st.sampled_from([1, 3, 17]))
        if name == "parquet":
            files.append(as_parquet(sound, group))
        else:
            files.append(as_arrow(sound, group, stream=data.draw(st.booleans())))
    assert_chunks_change_nothing(name, files, spec, sizes_drawn, options)
