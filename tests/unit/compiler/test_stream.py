"""The bar: bytes read of all sources, on stderr, and only where a compile takes long."""

import contextlib

import pytest

from tests.unit.compiler.conftest import ROWS, layouts
from tuneyard.compiler.engine import compile_inputs


@pytest.mark.parametrize(
    "name", ["lines.jsonl", "array.json", "table.csv", "lines.jsonl.gz", "table.parquet"]
)
def test_every_byte_of_the_sources_is_counted(bench, name, monkeypatch):
    counts = []

    @contextlib.contextmanager
    def followed_bar(paths):
        list(paths)
        yield counts.append

    monkeypatch.setattr(compile_inputs, "progress_bar", followed_bar)
    sources = [bench.write(f"{split}/{name}", layouts(ROWS)[name]) for split in ("train", "eval")]
    for workers in (1, 2):
        counts.clear()
        bench.compile("rte", f"train={sources[0]}", f"eval={sources[1]}", workers=workers, force=True)
        sizes = sum(path.stat().st_size for path in sources)
        assert sum(counts) >= sizes  # the end of a Parquet file is read twice


def test_a_long_compile_shows_a_bar_on_a_terminal_and_a_short_one_none(bench, capsys, monkeypatch):
    """Nothing is drawn into a file or a pipe, however long it takes."""
    source = bench.rows("train.jsonl", ROWS * 1000)
    monkeypatch.setattr("time.process_time", lambda: 2)  # before the first row, as in `data init`
    bench.compile("rte", source)
    assert capsys.readouterr().err == ""
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    bench.compile("rte", source, force=True)
    said = capsys.readouterr().err
    assert "reading:   0%" in said and "/287k" in said and said.endswith("\r")
    monkeypatch.setattr("time.process_time", lambda: 0)
    bench.compile("rte", source, force=True)
    assert capsys.readouterr().err == ""
