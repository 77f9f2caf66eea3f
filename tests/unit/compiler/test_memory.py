"""Memory of a compile whose rows are split, sampled, mixed or dropped: a bounded number of bytes a row."""

import contextlib
import random
import tracemalloc

import pytest

from tuneyard.compiler import chunks, pipeline
from tuneyard.compiler.check.unused_columns import Unused
from tuneyard.compiler.chunked_reading import Collectors
from tuneyard.compiler.chunks import ChunkResult, CompileJob, folder_of_chunk
from tuneyard.compiler.lint import matching, spool
from tuneyard.compiler.lint.duplicates import warn_of_duplicates
from tuneyard.compiler.lint.fingerprints import Fingerprints
from tuneyard.compiler.lint.row_checks import unit_key
from tuneyard.compiler.pipeline import Context, write_splits
from tuneyard.compiler.problems import Problems
from tuneyard.compiler.progress import Progress
from tuneyard.compiler.read.inputs import find_inputs
from tuneyard.compiler.request import CompileRequest
from tuneyard.compiler.spec.model import load_spec
from tuneyard.compiler.write.record_file import RecordFile
from tuneyard.core.execution import InThisProcess

MOST = 24  # bytes a row
FEW, MANY = 6_000, 21_000  # rows
BATCH = 1000
LIMITS = [  # of what is in memory at once: with these the smaller compile reaches them too
    (matching, "NUMPY_PAYS", 1000),
    (matching, "SHARE", 1 << 11),
    (spool, "BLOCK", 1 << 10),
    (spool, "IN_MEMORY", 1 << 12),
    (pipeline, "ARRANGED", 1 << 10),
]
COLUMNS = "columns: {question: [q], answer: {names: [a], is: answer}, kind: [kind], page: [page]}\n"
FILES = """
write: [{dataset: "t_{split}", file: "t-{split}.jsonl", format: alpaca,
         instruction: "{question}", output: "{answer}"}]
"""
SPLIT = f"{COLUMNS}{FILES}"
WHOLE = SPLIT.replace("_{split}", "").replace("-{split}", "")
MIXED = """
write:
  - {dataset: "t_{split}", file: "t-{split}.jsonl", format: alpaca}
  - {file: whole.jsonl, format: alpaca}
"""
SPECS = {
    "split": f"{SPLIT}split: {{eval: 0.1, test: 0.1}}\n",
    "stratified": f"{SPLIT}split: {{eval: 0.1, stratify: kind}}\n",
    "groups": f"{SPLIT}split: {{eval: 0.1, group: page, stratify: kind}}\n",
    "by hash": f"{SPLIT}split: {{eval: 0.1, by: hash}}\n",
    "leaks": f"{SPLIT}split: {{eval: 0.1}}\ndrop_leaks: true\ndrop_duplicates: true\n",
    "large sample": f"{WHOLE}sample: 0.9\n",
    "small sample": f"{WHOLE}sample: 0.3\n",
    "mixture": "mix: {total: TOTAL, shuffle: 1, parts: {train: {share: 1, as: PART}}}\n"
    f"{MIXED}split: {{eval: 0.1}}\n",
}


class Rows:
    """In place of the task of a chunk: distinct rows that no file is read for, some of them in each chunk."""

    count = 0

    def __init__(self, job, chunk, carry) -> None:
        self.job, self.chunk = job, chunk
        self.seen = Fingerprints()
        self.result = ChunkResult(carry, Problems(), Unused(), self.seen, {}, None)

    def run(self) -> ChunkResult:
        draw = random.Random(self.chunk.number)
        seen = self.seen
        folder = folder_of_chunk(self.job, self.chunk)
        folder.mkdir()
        with contextlib.ExitStack() as stack:
            outputs = enumerate(self.job.spec_of(self.chunk.part).outputs)
            files = [stack.enter_context(RecordFile(folder / f"{number}.rows")) for number, _ in outputs]
            self.add_rows(draw, seen, files)
        self.result.files = [file.part() for file in files]
        self.result.read = self.result.kept = self.count
        return self.result

    def add_rows(self, draw, seen, files) -> None:
        for start in range(0, self.count, BATCH):
            rows = range(start, start + BATCH)
            keys = [draw.getrandbits(63) for _ in rows]
            seen.begin("file:", rows)
            for column in (seen.prompts, seen.answers, seen.stable):
                column.fromlist(keys)
            seen.lengths.extend(key % 500 for key in keys)
            seen.classes.note([f"kind {row % 5}" for row in rows])
            seen.units.extend(unit_key(f"page {row // 2}") for row in rows)
            for file in files:
                lines = [b'{"instruction":"q%d","input":"","output":"a"}\n' % row for row in rows]
                file.add(b"".join(lines), len(lines))


@pytest.mark.parametrize("setting", SPECS)
def test_arranged_rows_take_few_bytes_each(bench, monkeypatch, setting):
    import numpy  # noqa: F401  # so that its import is not counted

    for module, limit, least in LIMITS:
        monkeypatch.setattr(module, limit, least)
    monkeypatch.setattr(chunks, "_ChunkTask", Rows)
    part = bench.write("part.yaml", f"about: a part\n{WHOLE}")
    source = bench.rows("a.jsonl", [{}])
    peaks = {}
    for rows in (BATCH, FEW, MANY):  # the first one fills caches
        monkeypatch.setattr(Rows, "count", rows)
        text = SPECS[setting].replace("PART", str(part)).replace("TOTAL", str(rows * 9 // 10))
        spec = bench.write("t.yaml", f"about: a test\n{text}")
        loaded = load_spec(str(spec))
        inputs = find_inputs(loaded, [f"train={source}"])
        problems = Problems(None, None)
        staged = bench.folder / f"staged {rows}"
        staged.mkdir()
        job = CompileJob(loaded, staged, kept_problems=None, reject=False, compares_rows=True)
        collectors = Collectors(problems, Unused(), Progress([]))
        context = Context(CompileRequest(sources=()), job, inputs, collectors, InThisProcess())
        tracemalloc.start()
        try:
            counts, written = write_splits(context)
            warn_of_duplicates(written.splits, None, problems)
            peaks[rows] = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
        assert counts.read == counts.kept + counts.not_sampled == rows
        assert sum(seen.rows for seen in written.splits.values()) == counts.kept >= rows * 0.3
    assert (peaks[MANY] - peaks[FEW]) / (MANY - FEW) <= MOST
