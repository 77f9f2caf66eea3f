"""Chunks: whatever the sizes, the bytes, the problems and the counts are those of one process."""

import contextlib
import csv
import io
import json
import os
import pickle
import random
import signal
import subprocess
import sys
import time
from collections import deque
from dataclasses import replace
from pathlib import Path

import pytest

from tests.unit.compiler.conftest import as_parquet
from tests.unit.compiler.test_specs import DEMO, sources
from tuneyard.compiler import chunked_reading, chunks, compile, pipeline
from tuneyard.compiler.compile import check_spec, compile_spec
from tuneyard.compiler.read import jsons, parquet, stream
from tuneyard.compiler.request import CompileRequest
from tuneyard.compiler.spec.file import known_specs
from tuneyard.compiler.spec.model import load_spec
from tuneyard.core.errors import ContentError, TuneyardError
from tuneyard.core.execution import SILENT, Common, Executor, InThisProcess, WorkResult, call

COLUMNS = """
about: a test
columns:
  question: [question, q]
  answer: {names: [answer, a], is: answer}
  label: [label]
  idx: {names: [idx], is: id, default: row number}
  kind: {names: [kind], is: extra, default: none}
labels: {"yes": [0, "0"], "no": [1, "1"], unlabelled: [-1, "-1"]}
"""
WRITE = """
write:
  - {dataset: "t_{split}", file: "t-{split}.json", format: alpaca,
     instruction: "{question}", output: "{answer} {label}", keep: [idx, kind]}
  - {file: "u-{split}.jsonl", format: messages, user: "{question}", assistant: "{answer}"}
"""
ONE = f"{COLUMNS}{WRITE}".replace("t_{split}", "t").replace("t-{split}", "t").replace("u-{split}", "u")
SPECS = {
    "plain": ONE,
    "grouped": f"{ONE}fit: {{group: question}}\n",
    "near": f"{ONE}fit: {{near: true}}\n",
    "filtered": f"{ONE}filter: {{min: 12, keywords: [cat, dog]}}\n",
    "sampled": f"{ONE}sample: 0.4\n",
    "no repeats": f"{ONE}drop_duplicates: true\n",
    "split": f"{COLUMNS}{WRITE}split: {{test: 0.3, stratify: kind}}\n",
    "by hash": f"{COLUMNS}{WRITE}split: {{test: 0.3, by: hash}}\ndrop_leaks: true\n",
    "groups": f"{COLUMNS}{WRITE}split: {{test: 0.3, group: question}}\n",
}


class Ahead(Executor):
    """Runs items here, but draws some of them before it gives a result, as workers do.

    Whatever goes to a worker or comes from it is pickled.
    """

    workers = 2

    def __init__(self, ahead: int) -> None:
        self.ahead = ahead

    def map(self, items, observer=SILENT, ahead=0):
        del observer, ahead
        done = deque()
        for item in items:
            given = [each.value if isinstance(each, Common) else each for each in item.arguments]
            reply = call(item.function, pickle.loads(pickle.dumps(given)))
            record = pickle.loads(pickle.dumps(reply.record))
            done.append(WorkResult(item.name, record, reply.error, exit_code=reply.exit_code))
            if len(done) > self.ahead:
                yield done.popleft()
        yield from done


@pytest.fixture
def small(monkeypatch):
    """Blocks of few rows, so that small files have many of them."""

    def set_sizes(block: int, chunk: int) -> None:
        monkeypatch.setattr(stream, "BLOCK", block)
        monkeypatch.setattr(jsons, "LOOKED_AT", 2 * block)
        monkeypatch.setattr(parquet, "BATCH", max(block // 64, 1))
        monkeypatch.setattr(chunked_reading, "CHUNK", chunk)
        monkeypatch.setattr(pipeline, "ARRANGED", max(chunk // 64, 1))

    return set_sizes


def made_rows(draw: random.Random, count: int, defects: float) -> list[dict]:
    """Rows of which some are alike, and some have a defect."""
    rows = []
    with_idx = draw.random() < 0.6
    for number in range(count):
        topic = draw.choice(["a cat sat", "two dogs ran, 三个", "no one came", 'it "rained"'])
        row = {
            "question": f"{topic} {draw.randrange(count // 2 + 1)}?",
            "answer": draw.choice(["Yes, it did.", "<b>No</b> way.", "[INST] x", "tab\there"]),
            "label": draw.choice([0, 1, 1, -1]),
            "idx": number,
            "kind": f"k{draw.randrange(3)}",
        }
        if not with_idx:
            del row["idx"]
        if draw.random() < defects:
            spoil(draw, row)
        rows.append(row)
    return rows


def spoil(draw: random.Random, row: dict) -> None:
    defect = draw.randrange(7)
    if defect == 0:
        row["label"] = 7
    elif defect == 1:
        row["question"] = " "
    elif defect == 2:
        row["kind"] = 5
    elif defect == 3:
        row["url"] = "http://x"
    elif defect == 4:
        row["answer"] = ""
    elif defect == 5:
        row.pop("answer")
    else:
        row["Weight"] = draw.choice([0, 1, 0.5])


def as_lines(draw: random.Random, rows: list[dict], defects: float) -> bytes:
    lines = []
    for row in rows:
        line = json.dumps(row, ensure_ascii=False).encode()
        if draw.random() < defects / 2:
            line = draw.choice(
                [b"", b"  ", line[:-3], b'{"a":1,"a":2}', b"[1]", line[:9] + b"\xff" + line[9:]]
            )
        lines.append(line)
    mark = b"\xef\xbb\xbf" if draw.random() < 0.3 else b""
    return mark + draw.choice([b"\n", b"\r\n"]).join(lines) + draw.choice([b"", b"\n"])


def as_table(draw: random.Random, rows: list[dict], kind: str, defects: float) -> bytes:
    names = list(rows[0])
    text = io.StringIO()
    if kind == "tsv":
        text.write("\t".join(names) + "\n")
        for row in rows:
            text.write("\t".join(" ".join(str(row.get(name, "")).split()) for name in names) + "\n")
    else:
        writer = csv.DictWriter(text, names, extrasaction="ignore", lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    lines = text.getvalue().encode().split(b"\n")
    for number in range(1, len(lines)):
        if draw.random() < defects / 2:
            lines[number] = draw.choice([b"", lines[number] + b"\t,x", lines[0], lines[number] + b"\xff"])
    return b"\n".join(lines)


def written(bench) -> dict[str, bytes]:
    files = {}
    for path in sorted(bench.out.rglob("*")):
        if path.is_file():
            files[str(path.relative_to(bench.out))] = path.read_bytes()
    return files


def outcome(bench, run, spec, source_options, **options) -> dict:
    """Everything that a compile leaves and says."""
    request = CompileRequest(sources=tuple(map(str, source_options)), out=bench.out, force=True, **options)
    try:
        report = run(load_spec(str(spec)), request)
    except TuneyardError as error:
        return {"error": str(error), "code": error.exit_code, "files": written(bench)}
    said = report.as_json()
    del said["seconds"]
    problems = [list(report.problems.first()), list(report.problems.counts.items()), report.verdict()]
    return {"said": said, "problems": problems, "unused": report.unused.lines(9), "files": written(bench)}


def assert_same(bench, monkeypatch, spec, source_options, ahead, **options) -> None:
    for run in (compile_spec, check_spec):
        alone = outcome(bench, run, spec, source_options, **options)
        with monkeypatch.context() as patch:
            patch.setattr(compile, "executor_for", lambda *_: Ahead(ahead))
            assert outcome(bench, run, spec, source_options, **options) == alone


@pytest.mark.parametrize("kind", ["jsonl", "json", "tsv", "csv", "multi.csv", "parquet", "arrow"])
@pytest.mark.parametrize("seed", range(6))
def test_a_file_in_chunks_gives_what_one_process_gives(bench, monkeypatch, small, kind, seed):
    draw = random.Random(f"{kind} {seed}")
    defects = draw.choice([0, 0, 0.02, 0.3])
    rows = made_rows(draw, draw.choice([3, 40, 150]), defects)
    source = bench.write(f"train.{kind}", as_file(draw, rows, kind, defects))
    small(draw.choice([64, 200, 1000]), draw.choice([1, 300, 4000]))
    spec = bench.write("t.yaml", SPECS[draw.choice(list(SPECS))])
    reject = draw.random() < 0.5
    every = draw.random() < 0.5
    assert_same(bench, monkeypatch, spec, [source], draw.randrange(5), reject=reject, every_problem=every)


def as_file(draw: random.Random, rows: list[dict], kind: str, defects: float) -> bytes:
    if kind in ("jsonl", "json"):
        return as_lines(draw, rows, defects)
    if kind == "multi.csv":
        for row in rows[::7]:
            row["answer"] = 'two\nlines, "quoted"'
    if kind.endswith("sv"):
        return as_table(draw, rows, kind.rpartition(".")[2], defects)
    columns = ("question", "answer", "label", "kind")
    sound = [{name: row.get(name) for name in columns} for row in rows]
    for row in sound:
        row["kind"] = str(row["kind"])
    if kind == "parquet":
        return as_parquet(sound, draw.choice([None, 1, 17]))
    return as_arrow(sound, draw.choice([1, 17, 1000]), stream=draw.random() < 0.5)


def as_arrow(rows: list[dict], batch: int, stream: bool) -> bytes:
    import pyarrow

    table = pyarrow.Table.from_pylist(rows)
    buffer = io.BytesIO()
    new = pyarrow.ipc.new_stream if stream else pyarrow.ipc.new_file
    with new(buffer, table.schema) as writer:
        writer.write_table(table, batch)
    return buffer.getvalue()


@pytest.mark.parametrize("name", list(SPECS))
@pytest.mark.parametrize("seed", range(3))
def test_every_way_of_arranging_rows_gives_what_one_process_gives(bench, monkeypatch, small, name, seed):
    draw = random.Random(f"{name} {seed}")
    rows = made_rows(draw, 120, 0)
    files = [bench.write("one.jsonl", as_lines(draw, rows[:70], 0)), bench.rows("two.jsonl", rows[70:])]
    folder = files[0].parent / "data"
    folder.mkdir()
    for file in files:
        file.rename(folder / file.name)
    small(300, draw.choice([1, 2000]))
    spec = bench.write("t.yaml", SPECS[name])
    assert_same(bench, monkeypatch, spec, [folder], draw.randrange(5))
    assert bench.compile(spec, folder, force=True).kept > 10


@pytest.mark.parametrize("name", [name for name in known_specs() if name not in DEMO])
def test_examples_of_every_spec_come_out_the_same_in_chunks(bench, monkeypatch, small, name):
    small(64, 1)
    assert_same(bench, monkeypatch, name, sources(load_spec(name)), 3)


def test_splits_and_mixtures_are_read_in_one_go(bench, monkeypatch, small):
    draw = random.Random(3)
    small(200, 1000)
    part = bench.write("part.yaml", ONE.partition("write:")[0] + WHOLE_ALPACA)
    mixture = bench.write(
        "mix.yaml",
        "about: a mixture\nmix: {total: 60, shuffle: 3, parts: {one: {share: 0.5, as: PART}, "
        "two: {share: 0.5, as: PART}}}\nwrite: [{dataset: m, file: m.json, format: alpaca}]\n".replace(
            "PART", str(part)
        ),
    )
    one, two = (
        bench.rows("one.jsonl", made_rows(draw, 90, 0)),
        bench.rows("two.jsonl", made_rows(draw, 50, 0)),
    )
    assert_same(bench, monkeypatch, mixture, [f"one={one}", f"two={two}"], 4)
    assert_same(bench, monkeypatch, "rte", rte_files(bench, draw), 4)


WHOLE_ALPACA = (
    'write: [{dataset: p, file: p.json, format: alpaca, instruction: "{question}", output: "{answer}"}]\n'
)


def rte_files(bench, draw: random.Random) -> list[str]:
    rows = [
        {
            "sentence1": f"Premise {draw.randrange(30)}.",
            "sentence2": f"Of {n % 50}.",
            "label": n % 2,
            "idx": n,
        }
        for n in range(90)
    ]
    return [f"train={bench.rows('train.jsonl', rows)}", f"eval={bench.rows('eval.jsonl', rows[40:60])}"]


def test_chunks_that_expect_what_comes_run_once(bench, monkeypatch, small):
    """Source columns, unused columns and row numbers are known ahead: no chunk of a usual file runs again."""
    small(200, 1000)
    draw = random.Random(8)
    rows = [{key: row[key] for key in row if key != "idx"} | {"url": "x"} for row in made_rows(draw, 200, 0)]
    again = []
    chunk = chunked_reading.compile_chunk
    monkeypatch.setattr(chunked_reading, "compile_chunk", lambda *given: again.append(given) or chunk(*given))
    monkeypatch.setattr(compile, "executor_for", lambda *_: Direct(4))
    for source in (bench.rows("a.jsonl", rows), bench.write("a.tsv", as_table(draw, rows, "tsv", 0))):
        bench.compile(bench.write("t.yaml", ONE), source, force=True)
    assert again == []


@pytest.mark.parametrize("most_warnings", [1000, 1])
def test_chunks_that_run_while_a_bad_row_stops_the_compile_are_not_read_again(
    bench, monkeypatch, small, most_warnings
):
    """Their rows were linted and written. They are read again only if there are too many warnings to list."""
    small(200, 1000)
    rows = made_rows(random.Random(8), 200, 0)
    rows[3] |= {"label": 7}
    source = bench.rows("a.jsonl", rows)
    spec = bench.write("t.yaml", f"{ONE}filter: {{min: 20}}\n")
    monkeypatch.setattr(pipeline, "KEPT", most_warnings)
    again = []
    chunk = chunked_reading.compile_chunk
    monkeypatch.setattr(chunked_reading, "compile_chunk", lambda *given: again.append(given) or chunk(*given))
    reports = []
    for executor in (InThisProcess(), Direct(4)):
        monkeypatch.setattr(compile, "executor_for", lambda *_, each=executor: each)
        again.clear()
        reports.append(bench.compile(spec, source))
    one, several = reports
    assert several.problems.counts == one.problems.counts and one.problems.counts["E104"] == 1
    assert several.problems.listed() == one.problems.listed()
    assert (several.read, several.kept, several.dropped) == (one.read, one.kept, one.dropped)
    assert several.not_written == one.not_written > 100
    assert bool(again) == (most_warnings == 1)


@pytest.mark.parametrize("has_ids", [True, False])
@pytest.mark.parametrize("kind", ["jsonl", "tsv"])
@pytest.mark.parametrize("rows_of_shard", [8, 40])
def test_shards_expect_the_types_and_the_numbers_of_those_before(
    bench, monkeypatch, small, has_ids, kind, rows_of_shard
):
    """Their chunks start before the first shard is joined. Those that expect other rows would run twice."""
    small(200, 1000)
    draw = random.Random(8)
    rows = made_rows(draw, 160, 0)
    for number, row in enumerate(rows):
        row.pop("idx", None)
        if has_ids:
            row["idx"] = number
    for start in range(0, 160, rows_of_shard):
        shard = rows[start : start + rows_of_shard]
        if kind == "tsv":
            bench.write(f"shards/{start:03}.tsv", as_table(draw, shard, "tsv", 0))
        else:
            bench.rows(f"shards/{start:03}.jsonl", shard)
    again = []
    chunk = chunked_reading.compile_chunk
    monkeypatch.setattr(chunked_reading, "compile_chunk", lambda *given: again.append(given) or chunk(*given))
    monkeypatch.setattr(compile, "executor_for", lambda *_: Direct(4))
    bench.compile(bench.write("t.yaml", ONE), bench.folder / "shards", force=True)
    assert again == []


class Direct(Ahead):
    """Calls the task itself, past what a test has put in the place of its name."""

    def map(self, items, observer=SILENT, ahead=0):
        return super().map((replace(item, function=chunks.compile_chunk) for item in items), observer, ahead)


ROWS = [{"question": f"What is {n}?", "answer": f"It is {n}.", "label": n % 2, "idx": n} for n in range(400)]


def test_forks_give_the_bytes_of_one_process(bench, small):
    small(1000, 4000)
    source = bench.rows("train.jsonl", ROWS)
    for name in ("plain", "split"):
        spec = bench.write("t.yaml", SPECS[name])
        bench.compile(spec, source, force=True, workers=1)
        alone = written(bench)
        assert bench.compile(spec, source, force=True, workers=2).kept == 400
        assert written(bench) == alone


def test_large_files_that_cannot_be_cut_are_read_here_in_their_turn(bench, small, monkeypatch):
    """Between two files in chunks, and alone."""
    small(1000, 4000)
    folder = bench.folder / "data"
    for name, rows in (("a.jsonl", ROWS[:150]), ("b.json", ROWS[150:300]), ("c.jsonl", ROWS[300:])):
        data = json.dumps(rows).encode() if name == "b.json" else as_lines(random.Random(1), rows, 0)
        bench.write(f"data/{name}", data)
    spec = bench.write("t.yaml", ONE)
    here = []

    def note(job, chunk, carry):
        here.append([file.path.name for file in chunk.files])
        return chunks.compile_chunk(job, chunk, carry)

    for source in (folder, folder / "b.json"):
        bench.compile(spec, source, force=True, workers=1)
        alone = written(bench)
        bench.compile(spec, source, force=True, workers=2)
        assert written(bench) == alone
        with monkeypatch.context() as patch:
            patch.setattr(chunked_reading, "LARGEST", 1000)
            patch.setattr(chunked_reading, "compile_chunk", note)
            patch.setattr(compile, "executor_for", lambda *_: Direct(2))
            bench.compile(spec, source, force=True)
        assert written(bench) == alone
    assert here == [["b.json"], ["b.json"]]


def die_once(job, chunk, carry):
    """The task of a chunk in a process that is killed at the third chunk, the first time."""
    died = job.staged.parent / "died"
    if chunk.number == 2 and not died.exists():
        died.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return chunks.compile_chunk(job, chunk, carry)


def test_the_chunk_of_a_killed_worker_runs_again(bench, small, monkeypatch):
    small(1000, 4000)
    source, spec = bench.rows("train.jsonl", ROWS), bench.write("t.yaml", ONE)
    bench.compile(spec, source)
    alone = written(bench)
    monkeypatch.setattr(chunked_reading, "compile_chunk", die_once)
    bench.compile(spec, source, force=True, workers=2)
    (bench.out / "died").unlink()
    assert written(bench) == alone


def die(job, chunk, carry):
    if chunk.number == 2:
        os.kill(os.getpid(), signal.SIGKILL)
    return chunks.compile_chunk(job, chunk, carry)


def test_a_chunk_that_kills_every_worker_is_named_and_publishes_nothing(bench, small, monkeypatch):
    small(1000, 4000)
    source, spec = bench.rows("train.jsonl", ROWS), bench.write("t.yaml", ONE)
    bench.compile(spec, source)
    before = written(bench)
    monkeypatch.setattr(chunked_reading, "compile_chunk", die)
    with pytest.raises(ContentError, match=r"train\.jsonl from line \d+ on: .* SIGKILL"):
        bench.compile(spec, source, force=True, workers=2)
    assert written(bench) == before and [path.name for path in bench.out.iterdir() if path.is_dir()] == ["t"]


SCRIPT = """
import resource, sys, time
from pathlib import Path
from tuneyard.compiler import chunked_reading, chunks
from tuneyard.compiler.cli import cli
from tuneyard.core.errors import run_command

seconds, size = float(sys.argv[1]), int(sys.argv[2])

def slowly(job, chunk, carry):
    result = chunks.compile_chunk(job, chunk, carry)
    time.sleep(seconds * (chunk.number > 3))
    return result

chunked_reading.CHUNK = 100_000
if seconds:
    chunked_reading.compile_chunk = slowly
if size:
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))
sys.argv[1:] = sys.argv[3:]
run_command(cli)
"""


def started(bench, seconds: float, file_size: int) -> "subprocess.Popen[str]":
    """A compile by two workers in a process of its own, which dawdles after some chunks."""
    rows = [row | {"answer": "word " * 300} for row in ROWS * 4]
    source, spec = bench.rows("train.jsonl", rows), bench.write("t.yaml", ONE)
    options = [str(seconds), str(file_size), "compile", str(spec), "--source", str(source), "--force"]
    command = [sys.executable, "-c", SCRIPT, *options, "--out", str(bench.out), "--workers", "2"]
    return subprocess.Popen(command, stderr=subprocess.PIPE, text=True)


def children_of(process: int) -> list[int]:
    listed = Path(f"/proc/{process}/task/{process}/children").read_text().split()
    return list(map(int, listed))


@pytest.mark.parametrize("sign", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_a_killed_compile_leaves_no_worker_and_the_old_set(bench, sign):
    source, spec = bench.rows("old.jsonl", ROWS[:9]), bench.write("t.yaml", ONE)
    bench.compile(spec, source)
    before = written(bench)
    process = started(bench, 30, 0)
    deadline = time.monotonic() + 60
    while not list(bench.out.glob(".t.*/.chunk-4/*")):  # it dawdles; those before it are soon joined
        assert time.monotonic() < deadline
        time.sleep(0.05)
    workers = children_of(process.pid)
    assert len(workers) == 2
    process.send_signal(sign)
    process.communicate()
    assert process.returncode in (-sign, 128 + sign)
    while any(is_alive(worker) for worker in workers) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not any(map(is_alive, workers))
    bench.compile(spec, source)  # it removes what a killed compile has left
    assert written(bench) == before and [path.name for path in bench.out.iterdir() if path.is_dir()] == ["t"]


def is_alive(process: int) -> bool:
    with contextlib.suppress(OSError):
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    return False


def test_a_full_disk_is_one_line_and_leaves_nothing(bench):
    process = started(bench, 0, 60_000)
    _, said = process.communicate(timeout=120)
    assert process.returncode == 2 and len(said.strip().splitlines()) == 1
    assert "File too large" in said and list(bench.out.glob("*")) == []
