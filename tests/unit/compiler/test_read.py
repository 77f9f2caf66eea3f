"""Readers by suffix: those of the folder, and plug-ins, each named where it fails."""

import json
from functools import partial

import pyarrow
import pytest

from tests.messages import printed_line
from tests.plug_ins import documented, installing
from tests.unit.compiler.conftest import ROWS, as_parquet
from tuneyard.compiler.cli import cli
from tuneyard.compiler.read import read, readers
from tuneyard.compiler.rows.problems import Problems
from tuneyard.compiler.spec.file import Source
from tuneyard.core.files.bounded_columns import BATCH_BYTES


@pytest.fixture
def plugin(tmp_path, monkeypatch):
    """`plugin(name, code)` installs a package with a reader of that name."""
    with installing(tmp_path / "lib", "tuneyard.readers", monkeypatch, readers) as lay:
        yield lay


@pytest.fixture
def compile_it(here, tmp_path):
    """Compile a source."""
    return partial(here, cli, "compile", "qa", "--out", tmp_path / "out", "--source")


@pytest.fixture
def talk(tmp_path):
    file = tmp_path / "talk.chatlog"
    file.write_text("How many? => Three.\nnothing\n")
    return file


def test_the_example_of_the_docs_is_a_reader(plugin, compile_it, talk):
    plugin("chatlog", documented("@reader"))
    printed_line(compile_it(talk, code=1).stderr, f"{talk}:2", "E002", "=>")
    good = compile_it(talk, "--on-error", "reject").stdout
    assert "read 2  kept 1  dropped 0  rejected 1" in good


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [(".chatlog", ".csv", ".csv has a reader already"), ('@reader(".chatlog")\n', "", "@reader")],
    ids=["csv", "plain"],
)
def test_a_plugin_that_is_no_reader_or_takes_a_kind_that_is_taken(plugin, compile_it, talk, old, new, said):
    plugin("chatlog", documented("@reader").replace(old, new))
    printed_line(compile_it(talk, code=1).stderr, "'chatlog'", "plug_chatlog 1.2", "tuneyard.readers", said)


def test_a_plugin_is_not_loaded_for_files_that_have_a_reader(plugin, compile_it, bench):
    plugin("bad", "raise SystemExit('no')")
    done = compile_it(bench.rows("train.jsonl", [{"question": "Why?", "answer": "So."}]))
    assert "plug_bad" not in done.stderr


def test_parquet_batches_are_bounded_by_what_rows_take_unpacked(bench):
    """A text that stands in every row is stored once: 20 MB of rows are a file of some kilobytes."""
    source = bench.write("qa.parquet", as_parquet([{"question": "x" * 100_000, "answer": "y"}] * 200))
    assert bench.compile("qa", source).read == 200
    assert source.stat().st_size < 50_000
    batches = read(source, str(source), Source(), Problems())
    sizes = [sum(len(str(text)) for text in rows.column("question")) for rows in batches]
    assert sum(sizes) == 200 * 100_000
    assert BATCH_BYTES / 2 < max(sizes) <= BATCH_BYTES


def test_parquet_is_read_without_the_memory_that_arrows_own_allocator_keeps(bench):
    """A worker takes 110 MB, and 140 MB with mimalloc."""
    source = bench.write("train.parquet", as_parquet(ROWS))
    assert bench.compile("rte", source).read == len(ROWS)
    assert pyarrow.default_memory_pool().backend_name == "system"


def test_line_numbers_hold_far_into_a_file(bench):
    lines = [json.dumps(ROWS[0] | {"idx": n}) for n in range(5_000)]
    lines[4_000] = json.dumps(ROWS[0] | {"label": 7})
    report = bench.compile("rte", bench.write("train.jsonl", "\n".join(lines)))
    assert [(p.code, p.place.rsplit(":", 1)[1]) for p in report.problems.errors] == [("E104", "4001")]
