"""A small file stands for gigabytes of rows. Each reader refuses it by name, in 3 GB and a minute.

SECURITY.md, "Texts". Every file is made here, in at most a few megabytes.
"""

import gzip
import io
import json
import os
import resource
import sqlite3
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.ipc
import pyarrow.parquet
import pytest

from tests.unit.compiler.conftest import as_zst
from tuneyard.compiler.read import read, stream
from tuneyard.compiler.rows.problems import Problems
from tuneyard.compiler.spec.file import Source
from tuneyard.core.errors import ContentError
from tuneyard.core.files import bounded_reading
from tuneyard.core.files.bounded_columns import arrow_batches, decoded_size, parquet_batches, record_slices
from tuneyard.core.files.bounded_reading import LARGEST_RECORD, LargeDataError
from tuneyard.eval.runs.tables import parquet_rows

Write = Callable[[Path], None]
ADDRESSES = 3_000_000_000
MIB = 1 << 20
QUERY = "with recursive c(n) as (select 1 union all select n + 1 from c where n < {rows}) select n from c"


def database(*statements: str) -> Callable[[Path], None]:
    def write(path: Path) -> None:
        with sqlite3.connect(path) as connection:
            for statement in statements:
                connection.execute(statement)

    return write


def repeated(text: str | bytes, rows: int, kind: pa.DataType | None = None) -> pa.DictionaryArray:
    return pa.DictionaryArray.from_arrays(pa.array(np.zeros(rows, np.int32)), pa.array([text], kind))


def parquet(column: pa.Array, groups: int = 1, **options: object) -> Callable[[Path], None]:
    def write(path: Path) -> None:
        table = pa.table({"question": column})
        settings = {"compression": "zstd", "dictionary_pagesize_limit": 1 << 30, "store_schema": False}
        with pyarrow.parquet.ParquetWriter(path, table.schema, **{**settings, **options}) as writer:
            for _ in range(groups):
                writer.write_table(table, row_group_size=len(table))

    return write


def arrow(column: pa.Array, compression: str | None = None, *, stream: bool = True) -> Callable[[Path], None]:
    def write(path: Path) -> None:
        table = pa.table({"question": column})
        settings = pyarrow.ipc.IpcWriteOptions(compression=compression)
        new = pyarrow.ipc.new_stream if stream else pyarrow.ipc.new_file
        with path.open("wb") as file, new(file, table.schema, options=settings) as writer:
            writer.write_table(table)

    return write


def packed(data: bytes, compress: Callable[[bytes], bytes] = as_zst) -> Callable[[Path], None]:
    def write(path: Path) -> None:
        path.write_bytes(compress(data))

    return write


def lists(values: pa.Array) -> pa.Array:
    """Lists of 100 values."""
    return pa.ListArray.from_arrays(np.arange(0, len(values) + 1, 100, np.int32), values)


def archive(data: bytes) -> Callable[[Path], None]:
    def write(path: Path) -> None:
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
            file.writestr("a.jsonl", data)

    return write


def saved(path: Path) -> None:
    path.mkdir()
    arrow(repeated("x" * 8_000_000, 5000), "zstd")(path / "data.arrow")
    (path / "state.json").write_text(json.dumps({"_data_files": [{"filename": "data.arrow"}]}))


def views() -> pa.Array:
    """1,000 texts of 8 MB, which are one and the same 8 MB."""
    view = np.frombuffer((8_000_000).to_bytes(4, "little") + b"xxxx" + bytes(8), np.uint8)
    buffers = [None, pa.py_buffer(np.tile(view, 1000).tobytes()), pa.py_buffer(b"x" * 8_000_000)]
    return pa.Array.from_buffers(pa.string_view(), 1000, buffers)


def cycle(path: Path) -> None:
    """A table whose pages have one page below them 400 times, in six levels: 4 * 10^15 times its rows."""
    database("create table t (question text)", "insert into t values ('q'), ('r')")(path)
    first, rows = path.read_bytes()[:4096], path.read_bytes()[4096:]
    pages = []
    for child in range(3, 9):
        cells = [child.to_bytes(4, "big") + bytes([number % 128]) for number in range(400)]
        starts = b"".join((4096 - 5 * (number + 1)).to_bytes(2, "big") for number in range(400))
        head = b"\5\0\0" + (400).to_bytes(2, "big") + (4096 - 2000).to_bytes(2, "big") + b"\0"
        page = head + child.to_bytes(4, "big") + starts
        pages.append(page + bytes(4096 - 2000 - len(page)) + b"".join(reversed(cells)))
    whole = bytearray(first + b"".join(pages) + rows)
    whole[28:32] = (8).to_bytes(4, "big")
    path.write_bytes(whole)


def nulls() -> pa.Array:
    return pa.nulls(1 << 24, pa.int32())


def wide() -> pa.Array:
    return repeated(LONG.encode(), 40, pa.binary(len(LONG)))


def delta() -> pa.Array:
    return pa.array([LONG + str(number) for number in range(50)])


def empty() -> pa.Array:
    return pa.ListArray.from_arrays([0, 1 << 27], pa.nulls(1 << 27, pa.int8()))


def runs() -> pa.Array:
    return pa.RunEndEncodedArray.from_arrays(pa.array([1 << 30], pa.int32()), ["x"])


LONG = "x" * 8_000_000
PLAIN = {"use_dictionary": False}
PREFIXES = {"question": "DELTA_BYTE_ARRAY"}
# Each writer is made when its file is: a process that only collects the tests keeps gigabytes otherwise.
FILES: dict[str, tuple[str, Callable[[], Write], str]] = {
    "SQLite: a view": ("a.db", lambda: database("create view t as " + QUERY.format(rows=9)), "E007"),
    "SQLite: a computed column": (
        "a.db",
        lambda: database("create table t (q text, a as (hex(zeroblob(400))))", "insert into t values ('q')"),
        "E007",
    ),
    "SQLite: a virtual table": (
        "a.db",
        lambda: database("create virtual table t using rtree(id, a, b)"),
        "E007",
    ),
    "SQLite: a default": (
        "a.db",
        lambda: database(
            "create table t (q text)",
            "insert into t " + QUERY.format(rows=2000),
            f"alter table t add column a text default '{LONG}'",
        ),
        "E015",
    ),
    "SQLite: a large value": (
        "a.db",
        lambda: database("create table t (q text)", "insert into t values (hex(zeroblob(10000000)))"),
        "E014",
    ),
    "SQLite: pages in a circle": ("a.db", lambda: cycle, "E015"),
    "Parquet: a dictionary": ("a.parquet", lambda: parquet(repeated(LONG, 20_000)), "E015"),
    "Parquet: a dictionary in lists": (
        "a.parquet",
        lambda: parquet(lists(repeated(LONG[: 9**6], 100_000))),
        "E014",
    ),
    "Parquet: wide values": ("a.parquet", lambda: parquet(wide()), "E015"),
    "Parquet: delta texts": (
        "a.parquet",
        lambda: parquet(delta(), **PLAIN, column_encoding=PREFIXES),
        "E015",
    ),
    "Parquet: nulls": ("a.parquet", lambda: parquet(nulls(), 4), "E015"),
    "Parquet: runs": ("a.parquet", lambda: parquet(pa.array(np.zeros(1 << 24, np.int8)), 2), "E015"),
    "Parquet: a list of nulls": ("a.parquet", lambda: parquet(empty()), "E015"),
    "Arrow: a dictionary in a stream": ("a.arrow", lambda: arrow(repeated(LONG, 5000), "zstd"), "E015"),
    "Arrow: a dictionary in a file": (
        "a.arrow",
        lambda: arrow(repeated(LONG, 5000), "lz4", stream=False),
        "E015",
    ),
    "Arrow: packed zeros": (
        "a.arrow",
        lambda: arrow(pa.array(np.zeros(140_000_000, np.int64)), "zstd"),
        "E015",
    ),
    "Arrow: nulls": ("a.arrow", lambda: arrow(pa.nulls((1 << 31) - 1)), "E015"),
    "Arrow: runs": ("a.arrow", lambda: arrow(runs()), "E015"),
    "Arrow: views": ("a.arrow", lambda: arrow(views(), "zstd"), "E015"),
    "a saved dataset": ("saved", lambda: saved, "E015"),
    "a packed Parquet": ("a.parquet.zst", lambda: packed(bytes(300 * MIB)), "E015"),
    "a packed database": ("a.db.zst", lambda: packed(bytes(300 * MIB)), "E015"),
    "packed lines of zeros": ("a.jsonl.zst", lambda: packed(bytes(300 * MIB)), "E014"),
    "packed lines of zeros by gzip": ("a.jsonl.gz", lambda: packed(bytes(100 * MIB), gzip.compress), "E014"),
    "packed blank lines": ("a.jsonl.zst", lambda: packed(b"\n" * (300 * MIB)), "E015"),
    "packed blank lines of text": ("a.txt.zst", lambda: packed(b"\n" * (300 * MIB)), "E015"),
    "packed blank lines of CSV": ("a.csv.zst", lambda: packed(b"\n" * (300 * MIB)), "E015"),
    "packed rows": ("a.jsonl.zst", lambda: packed(b'{"q": 1}\n' * (30 * MIB)), "E015"),
    "an archive": ("a.zip", lambda: archive(bytes(100 * MIB)), "E014"),
}

CHILD = """
import resource, sys
from pathlib import Path
resource.setrlimit(resource.RLIMIT_AS, (%d, %d))
from tuneyard.compiler.cli import cli
from tuneyard.core.cli.run import run_command
run_command(cli)
"""


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Makes the file of a case once."""
    folder = tmp_path_factory.mktemp("hostile")

    def made(case: str) -> Path:
        name, writer, _ = FILES[case]
        path = folder / str(list(FILES).index(case)) / name
        if not path.parent.exists():
            path.parent.mkdir()
            writer()(path)
        return path

    return made


def test_the_files_are_small(files: Callable[[str], Path]) -> None:
    sizes = {case: files(case).stat().st_size for case in ("Parquet: a dictionary", "Arrow: nulls")}
    assert max(sizes.values()) < 2000


@pytest.mark.parametrize("case", FILES)
def test_a_reader_refuses_it_by_name(
    files: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch, case: str
) -> None:
    """In this process, of which the peak of memory grows by a gigabyte at most.

    Rows of one gigabyte are read whatever the size of their file: here it is a quarter of that.
    """
    for module in (stream, bounded_reading):
        monkeypatch.setattr(module, "LARGEST_RUN", 256 * MIB)
    path = files(case)
    paths = [path / "data.arrow"] if path.is_dir() else [path]
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    problems = Problems()
    for rows in read(paths[0], str(paths[0]), Source(), problems):
        assert len(rows.lines) <= 1 << 17
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    assert problems.errors[-1].code == FILES[case][2]
    assert problems.errors[-1].place.startswith(str(paths[0]))
    assert grown < 1_000_000


@pytest.mark.slow
@pytest.mark.parametrize("command", ["check", "init", "compile"])
@pytest.mark.parametrize("case", FILES)
def test_a_command_refuses_it_in_3_gb_and_a_minute(
    tmp_path: Path, files: Callable[[str], Path], case: str, command: str
) -> None:
    path = files(case)
    words = {
        "check": ["check", "qa", "--source", path],
        "init": ["init", path, "--out", tmp_path / "s.yaml"],
        "compile": ["compile", "qa", "--source", path, "--out", tmp_path / "out"],
    }
    done = subprocess.run(
        [sys.executable, "-c", CHILD % (ADDRESSES, ADDRESSES), *words[command]],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env={**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"},
    )
    assert done.returncode in (1, 2) and "Traceback" not in done.stderr, done.stderr
    assert str(path) in done.stderr and not (tmp_path / "out/dataset_info.json").exists()


def test_a_row_is_measured_whatever_its_reader(tmp_path: Path) -> None:
    """16 MiB is the limit: a row just below it is read, one just above it is named."""
    for size, codes in ((LARGEST_RECORD - 100, []), (LARGEST_RECORD + 1, ["E014"])):
        rows = [{"question": "short"}, {"question": "x" * size}]
        table = pa.Table.from_pylist(rows)
        pyarrow.parquet.write_table(table, tmp_path / "a.parquet")
        with pyarrow.ipc.new_stream(tmp_path / "a.arrow", table.schema) as writer:
            writer.write_table(table)
        (tmp_path / "a.db").unlink(missing_ok=True)
        with sqlite3.connect(tmp_path / "a.db") as connection:
            connection.execute("create table t (question text)")
            connection.executemany("insert into t values (:question)", rows)
        (tmp_path / "a.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        for name in ("a.parquet", "a.arrow", "a.db", "a.jsonl"):
            problems = Problems()
            found = list(read(tmp_path / name, name, Source(), problems))
            assert [problem.code for problem in problems.errors] == codes, name
            if not codes:
                assert sum(len(each.lines) for each in found) == 2
            elif name in ("a.parquet", "a.arrow"):
                assert problems.errors[0].place == f"{name} row 2"
            else:
                assert problems.errors[0].place.startswith(name)


def nested() -> pa.Table:
    """Rows of every type that a dataset has."""
    rows = [
        {
            "text": f"row {number}" * (number % 7),
            "messages": [{"role": "user", "content": f"{number}"}] * (number % 5),
            "tags": ["a", None, "b"][: number % 4],
            "score": number / 3,
            "none": None,
            "deep": {"a": {"b": "x" * (number % 3)}},
        }
        for number in range(5000)
    ]
    table = pa.Table.from_pylist(rows)
    return table.append_column("kind", pa.array(["x", "y", None, "z"] * 1250).dictionary_encode())


LAYOUTS: list[dict[str, object]] = [
    {},
    PLAIN,
    {"row_group_size": 700},
    {"data_page_size": 500},
    {"data_page_version": "2.0"},
]


@pytest.mark.parametrize("options", LAYOUTS)
def test_parquet_is_read_as_by_its_own_library(options: dict[str, object]) -> None:
    table, packed_table = nested(), io.BytesIO()
    pyarrow.parquet.write_table(table, packed_table, **options)
    _, batches = parquet_batches(packed_table)
    rows = [row for batch in batches for part in record_slices(batch, 1) for row in part.to_pylist()]
    assert rows == table.to_pylist()


@pytest.mark.parametrize("compression", [None, "lz4", "zstd"])
@pytest.mark.parametrize("stream", [True, False])
def test_arrow_is_read_as_by_its_own_library(tmp_path: Path, stream: bool, compression: str | None) -> None:
    table = nested()
    new = pyarrow.ipc.new_stream if stream else pyarrow.ipc.new_file
    settings = pyarrow.ipc.IpcWriteOptions(compression=compression)
    with new(tmp_path / "a.arrow", table.schema, options=settings) as writer:
        writer.write_table(table, max_chunksize=3000)
    with (tmp_path / "a.arrow").open("rb") as file:
        _, batches = arrow_batches(file, tmp_path / "a.arrow")
        rows = [row for batch in batches for part in record_slices(batch, 1) for row in part.to_pylist()]
    assert rows == table.to_pylist()


def size(values: object) -> int:
    return decoded_size(pa.RecordBatch.from_arrays([pa.array(values)], ["a"]))


def test_the_size_of_values_is_that_of_their_texts() -> None:
    """By hand: 5 + 5 + 3 characters, and two bytes for each value."""
    texts = ["hello", "world", "you"]
    assert size(texts) == 13 + 6
    assert size(pa.array(texts).dictionary_encode()) == 13 + 6
    assert size([["hello"], ["world", "you"]]) == 13 + 6 + 4
    assert size(pa.array([{"b": "hello"}, {"b": "world"}]).slice(1)) == 5 + 2 + 2
    assert size(views().slice(0, 2)) == 16_000_000 + 4
    maps = pa.array([[("k", "long")], [("k", "v")]], pa.map_(pa.string(), pa.string()))
    assert size(maps.slice(1)) == 2 + (1 + 2) + (1 + 2)
    assert size(pa.nulls(7)) == 14


def test_places_outside_of_the_data_are_an_error(tmp_path: Path) -> None:
    """An Arrow file says where its texts are: nothing is read beside them."""
    for offsets in ([0, 4, 2, 5], [0, 1 << 30, 5, 5], [0, 5, 5, 2_000_000_000]):
        table = pa.table({"question": ["he", "ll", "o"]})
        with pyarrow.ipc.new_stream(tmp_path / "a.arrow", table.schema) as writer:
            writer.write_table(table)
        data = (tmp_path / "a.arrow").read_bytes()
        old = np.array([0, 2, 4, 5], np.int32).tobytes()
        assert data.count(old) == 1
        (tmp_path / "a.arrow").write_bytes(data.replace(old, np.array(offsets, np.int32).tobytes()))
        problems = Problems()
        list(read(tmp_path / "a.arrow", "a.arrow", Source(), problems))
        assert [(problem.code, problem.place) for problem in problems.errors] == [("E012", "a.arrow row 1")]


def test_the_reader_of_results_has_the_same_limits(
    files: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bounded_reading, "LARGEST_RUN", 256 * MIB)
    for case in ("Parquet: a dictionary", "Parquet: nulls", "Parquet: a list of nulls"):
        with pytest.raises(ContentError, match=r"a\.parquet.*[MG]iB"):
            for row in parquet_rows(files(case)):
                assert row is not None


def test_a_batch_that_can_be_mapped_is_not_refused_for_its_size(tmp_path: Path) -> None:
    """70 MB in one batch, which are cut before they are unpacked."""
    table = pa.table({"question": ["x" * 100_000] * 700})
    with pyarrow.ipc.new_stream(tmp_path / "a.arrow", table.schema) as writer:
        writer.write_table(table)
    with (tmp_path / "a.arrow").open("rb") as file:
        _, batches = arrow_batches(file, tmp_path / "a.arrow")
        sizes = [part.num_rows for batch in batches for part in record_slices(batch, 1)]
    assert sum(sizes) == 700 and max(sizes) * 100_000 <= LARGEST_RECORD


def test_an_error_has_its_place_inside_of_the_file() -> None:
    table = pa.table({"question": pa.array(["a", "x" * (LARGEST_RECORD + 1), "b"])})
    with pytest.raises(LargeDataError) as caught:
        list(record_slices(table.to_batches()[0], 10))
    assert caught.value.place == "row 11" and caught.value.is_record


@pytest.mark.parametrize("name", ["a.parquet.zst", "a.arrow.gz", "a.db.gz", "a.xlsx.zst", "a.zip.gz"])
def test_a_packed_binary_file_does_not_fill_the_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """100 times its size, as texts have at times: at most 30 times go to a temporary file beyond 64 MB."""
    monkeypatch.setattr(stream, "LARGEST_RUN", 64 * MIB)
    compress = gzip.compress if name.endswith("gz") else as_zst
    (tmp_path / name).write_bytes(compress((os.urandom(10_000) + bytes(990_000)) * 100))
    problems = Problems()
    list(read(tmp_path / name, name, Source(), problems))
    assert [problem.code for problem in problems.errors] == ["E015"]
    assert "30 times" in problems.errors[0].message


def test_a_packed_text_has_no_temporary_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stream, "LARGEST_RUN", 64 * MIB)
    rows = "".join(f'{{"q": "{os.urandom(500).hex()}"}}\n' * 100 for _ in range(800))
    (tmp_path / "a.jsonl.zst").write_bytes(as_zst(rows.encode()))
    problems = Problems()
    batches = read(tmp_path / "a.jsonl.zst", "a.jsonl.zst", Source(), problems)
    assert sum(len(each.lines) for each in batches) == 80_000 and not problems.errors


def test_what_repeats_itself_is_read_whatever_it_is_packed_to(tmp_path: Path) -> None:
    """A log with the same line all day, and one system text of 20,000 characters in all rows."""
    line = (
        b'{"question": "ping", "answer": "pong", "host": "a", "level": "info", "code": 200, "retries": 0}\n'
    )
    (tmp_path / "log.jsonl.zst").write_bytes(as_zst(line * 800_000))
    texts = pa.table({"question": ["Is it? " * 3000] * 20_000, "answer": ["yes"] * 20_000})
    pyarrow.parquet.write_table(texts, tmp_path / "a.parquet")
    for name, count in (("log.jsonl.zst", 800_000), ("a.parquet", 20_000)):
        problems = Problems()
        rows = sum(len(batch.lines) for batch in read(tmp_path / name, name, Source(), problems))
        assert (rows, problems.errors) == (count, [])
