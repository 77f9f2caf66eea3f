"""Files that workers compile side by side: the bytes, the problems and the counts of one process."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import ROOT
from tests.folders import names
from tests.held import Held
from tests.processes import on_a_full_disk, wait_for_end
from tests.runs_cut import tree
from tests.unit.compiler.conftest import Bench, json_lines
from tuneyard.compiler.publish.report import report_as_json

WRITE = """
write: [{dataset: "t_{split}", file: "t-{split}.jsonl", format: alpaca,
         instruction: "{question}", output: "{answer}", keep: [n]}]
"""
COLUMNS = "columns: {question: [q], answer: {names: [a], is: answer}, n: {names: [n], is: any}}\n"
SPECS = {
    "in order": "",
    "split": "split: {eval: 0.2, test: 0.1}\n",
    "by hash": "split: {eval: 0.2, by: hash}\n",
    "stratified": "split: {eval: 0.2, stratify: n}\n",
    "sample": "sample: 25\ndrop_duplicates: true\n",
    "filtered": "filter: {min: 14}\n",
}
SHORT = WRITE.replace("_{split}", "").replace("-{split}", "")
SPEC = f"about: a test\n{COLUMNS}{SHORT}"
"""For specs without splits."""


def rows(first: int, count: int) -> list[dict]:
    return [{"q": f"Question {n}?", "a": f"It is {n % 7}.", "n": n % 3} for n in range(first, first + count)]


def sources_of(bench) -> list[Path]:
    """Five files: two formats, one without rows, one with rows that came before, one with bad rows."""
    return [
        bench.rows("a.jsonl", rows(0, 30)),
        bench.rows("b.jsonl", [*rows(25, 10), {"q": None, "a": "x", "n": 0}, *rows(40, 5)]),
        bench.write("c.jsonl", ""),
        bench.write("d.json", json.dumps(rows(60, 20))),
        bench.rows("e.jsonl", [*rows(80, 9), {"q": "One?", "n": 1}, {"q": "Two?", "a": 7, "n": 1}]),
    ]


def by_one_and_by_two(bench, sources, **how) -> list:
    """The reports of two compiles: by one process and by two workers."""
    return [bench.compile(SPEC, *sources, workers=workers, **how) for workers in (1, 2)]


def said_by(report) -> dict[str, object]:
    said = report_as_json(report)
    del said["seconds"]
    return said


@pytest.mark.parametrize("setting", SPECS)
def test_the_bytes_do_not_depend_on_the_workers(bench, setting) -> None:
    """The manifest holds every count, problem and hash, so that equal manifests mean equal reports."""
    write = WRITE if "split" in SPECS[setting] else SHORT
    spec = f"about: a test\n{COLUMNS}{SPECS[setting]}{write}"
    sources = sources_of(bench)
    written, said = {}, {}
    for workers in (1, 2):
        out = bench.folder / f"out {workers}"
        said[workers] = said_by(bench.compile(spec, *sources, out=out, workers=workers, reject=True))
        written[workers] = tree(out)
    assert written[1] == written[2]
    assert said[1] == said[2]
    assert said[1]["rejected"] == 3 and said[1]["read"] == 30 + 16 + 20 + 11


def test_the_problems_are_listed_in_the_order_of_the_files(bench) -> None:
    """Of 5 files with 400 bad rows each, the first 1,000 are kept, however soon a worker ends."""
    sizes = (10_000, 10, 10, 10, 10)
    sources = [
        bench.rows(f"{number}.jsonl", [*rows(0, size), *[{"q": "", "a": "x", "n": 0}] * 400])
        for number, size in enumerate(sizes)
    ]
    reports = by_one_and_by_two(bench, sources)
    assert bench.codes(reports[0]) == bench.codes(reports[1])
    assert len(reports[0].problems.errors) == 1000
    assert sum(reports[0].problems.counts.values()) == sum(reports[1].problems.counts.values()) == 2000
    assert not bench.out.exists()


@pytest.mark.parametrize("numbers", [["7", "8"], [1.5, None], [{"x": 1}]])
def test_a_kept_column_of_another_type_in_a_later_file_is_found(bench, numbers) -> None:
    """A worker compiles the file as if it were the first: what the files before it change is done again."""
    others = [{"q": f"Other {n}?", "a": "x", "n": value} for n, value in enumerate(numbers)]
    sources = [bench.rows("a.jsonl", rows(0, 5)), bench.rows("b.jsonl", others)]
    one, two = by_one_and_by_two(bench, sources, reject=True, force=True)
    assert said_by(one) == said_by(two)


@pytest.mark.parametrize("workers", [None, 2])
def test_rows_without_ids_are_numbered_over_all_files(bench, capsys, workers) -> None:
    write = SHORT.replace("keep: [n]", "keep: [idx]")
    columns = "columns: {question: [q], answer: {names: [a], is: answer}, idx: {names: [idx], is: id}}\n"
    spec = bench.write("t.yaml", f"about: a test\n{columns}{write}")
    bench.compile(spec, bench.rows("a.jsonl", rows(0, 5)), bench.rows("b.jsonl", rows(5, 5)), workers=workers)
    assert bench.values("t.jsonl", "idx") == list(range(10))
    assert ("one process" in capsys.readouterr().err) == (workers is not None)


def large(bench) -> list[Path]:
    lines = json_lines(rows(0, 2500))
    return [bench.write(f"{number}.jsonl", lines) for number in range(4)]


def two_workers(bench, spec: Path, sources: list[Path]) -> list[str]:
    """The module and the words of a compile by two workers."""
    given = [f"--source={source}" for source in sources]
    command = ["compiler", "compile", spec, *given, "--out", bench.out, "--workers", 2]
    return list(map(str, command))


def started(bench, spec: Path, sources: list[Path]) -> tuple[Held, list[int]]:
    """A compile whose two workers have each written a file and opened another, and the workers."""
    held = Held("tuneyard.compiler.write.record_file.RecordFile.add", 2, *two_workers(bench, spec, sources))
    return held, held.waiting(2)


@pytest.fixture(scope="module")
def plain(tmp_path_factory) -> tuple[Path, list[Path], dict[str, bytes]]:
    """A spec, its sources, and what one process writes of them."""
    bench = Bench(tmp_path_factory.mktemp("plain"))
    spec = bench.write("t.yaml", SPEC)
    sources = large(bench)
    bench.compile(spec, *sources, workers=1)
    return spec, sources, tree(bench.out / "t")


@pytest.mark.slow
def test_the_file_of_a_killed_worker_is_compiled_again(bench, plain) -> None:
    spec, sources, expected = plain
    held, workers = started(bench, spec, sources)
    os.kill(workers[0], signal.SIGKILL)
    held.go_on()
    held.ended(0)
    assert tree(bench.out / "t") == expected


@pytest.mark.slow
@pytest.mark.parametrize(
    ("sent", "code"), [(signal.SIGKILL, -9), (signal.SIGTERM, 143), (signal.SIGINT, 130)]
)
def test_workers_end_with_their_parent_and_leave_the_old_set(bench, plain, sent, code) -> None:
    spec, sources, _ = plain
    bench.compile_rows(spec, rows(0, 3))
    before = tree(bench.out / "t")
    held, workers = started(bench, spec, sources)
    held.ended_by(sent)
    wait_for_end(workers)
    assert tree(bench.out / "t") == before
    bench.compile_rows(spec, rows(0, 3), force=True)  # sweeps what SIGKILL left
    assert names(bench.out) == ["dataset_info.json", "t"]


def test_a_disk_that_is_full_in_a_worker_is_one_line_and_leaves_nothing(bench) -> None:
    spec = bench.write("t.yaml", f"about: a test\n{COLUMNS}{SHORT}")
    done = on_a_full_disk([sys.executable, "-m", *two_workers(bench, spec, large(bench))])
    assert done.returncode == 2 and "Traceback" not in done.stderr
    assert "File too large" in done.stderr and not bench.out.exists()


@pytest.mark.skipif(os.geteuid() == 0, reason="root writes into any folder")
def test_a_check_needs_no_folder_to_write_into(bench) -> None:
    spec = bench.write("t.yaml", SPEC)
    source = bench.rows("a.jsonl", rows(0, 3))
    bench.folder.chmod(0o555)
    try:
        done = subprocess.run(
            [sys.executable, "-m", "compiler", "check", spec, "--source", source],
            cwd=bench.folder,
            env=os.environ | {"PYTHONPATH": str(ROOT)},
            capture_output=True,
            text=True,
            check=False,
        )
    finally:
        bench.folder.chmod(0o755)
    assert done.returncode == 0, done.stderr


def test_a_part_that_a_worker_cannot_read_ends_the_compile_with_its_place(bench) -> None:
    sources = [bench.rows("a.jsonl", rows(0, 5)), bench.write("b.csv", 'q,a,n\n"open')]
    one, two = by_one_and_by_two(bench, sources)
    assert one.failed and said_by(one) == said_by(two)
