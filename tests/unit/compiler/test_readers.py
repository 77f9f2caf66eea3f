"""Readers by suffix: those of the folder, and plug-ins, each named where it fails."""

import re

import pyarrow
import pytest

from tests.conftest import ROOT
from tests.messages import printed_line
from tests.unit.compiler.conftest import ROWS, as_parquet
from tuneyard.compiler.problems import Problems
from tuneyard.compiler.read import read
from tuneyard.compiler.read.parquet import BATCH_BYTES
from tuneyard.compiler.spec.file import Source

PLUGIN = '''
from tuneyard.compiler.read import OpenFile, reader
from tuneyard.compiler.rows import ObjectRows


@reader(".pairs")
def pairs(file, problems):
    """Read `sentence1 | sentence2 | label` lines."""
    lines = [line.decode().split(" | ") for line in file.stream]
    rows = [{"sentence1": a, "sentence2": b, "label": int(c)} for a, b, c in lines]
    yield ObjectRows(f"{file.display_path}:", range(1, len(rows) + 1), rows)
'''


@pytest.fixture
def plugin(tmp_path, run):
    """Install a package of one module with an entry point; returns a compile of a file of its kind."""

    def install(name: str, code: str, attribute: str = "pairs"):
        folder = tmp_path / "lib"
        about = folder / f"plug_{name}-1.2.dist-info"
        about.mkdir(parents=True)
        (folder / f"plug_{name}.py").write_text(code)
        (about / "METADATA").write_text(f"Metadata-Version: 2.1\nName: plug_{name}\nVersion: 1.2\n")
        (about / "entry_points.txt").write_text(f"[tuneyard.readers]\n{name} = plug_{name}:{attribute}\n")

    def compile_it(source, code=0):
        command = ("compile", "rte", "--source", f"train={source}", "--out", tmp_path / "out")
        return run("-m", "compiler", *command, code=code, env={"PYTHONPATH": f"{tmp_path / 'lib'}:{ROOT}"})

    install.compile = compile_it
    return install


@pytest.fixture
def pairs(tmp_path):
    file = tmp_path / "train.pairs"
    file.write_text("".join(f"{row['sentence1']} | {row['sentence2']} | {row['label']}\n" for row in ROWS))
    return file


def test_a_plugin_reads_files_of_its_kind(plugin, pairs):
    plugin("good", PLUGIN)
    assert "read 3  kept 3" in plugin.compile(pairs).stdout


def test_the_example_of_the_docs_is_a_reader(plugin, run, tmp_path):
    text = (ROOT / "docs/extending.md").read_text()
    (code,) = re.findall(r"```python\n(from tuneyard.compiler.*?)```", text, re.DOTALL)
    plugin("chatlog", code, "chatlog")
    file = tmp_path / "talk.chatlog"
    file.write_text("How many? => Three.\nnothing\n")
    command = ("compile", "qa", "--source", file, "--out", tmp_path / "out")
    env = {"PYTHONPATH": f"{tmp_path / 'lib'}:{ROOT}"}
    bad = run("-m", "compiler", *command, code=1, env=env).stderr
    printed_line(bad, f"{file}:2", "E002", "=>")
    good = run("-m", "compiler", *command, "--on-error", "reject", env=env).stdout
    assert "read 2  kept 1  dropped 0  rejected 1" in good


@pytest.mark.parametrize(
    ("name", "code", "said"),
    [
        ("csv", PLUGIN.replace(".pairs", ".csv"), ".csv has a reader already"),
        ("plain", PLUGIN.replace('@reader(".pairs")\n', ""), "@reader"),
    ],
    ids=["csv", "plain"],
)
def test_a_plugin_that_is_no_reader_or_takes_a_kind_that_is_taken(plugin, pairs, name, code, said):
    plugin(name, code)
    printed_line(
        plugin.compile(pairs, code=1).stderr, f"'{name}'", f"plug_{name} 1.2", "tuneyard.readers", said
    )


def test_a_plugin_is_not_loaded_for_files_that_have_a_reader(plugin, bench):
    plugin("bad", "raise SystemExit('no')")
    assert plugin.compile(bench.rows("train.jsonl", ROWS)).stderr.startswith("next: ")


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
