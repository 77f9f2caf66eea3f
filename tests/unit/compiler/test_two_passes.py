"""Memory of a compile whose rows are split, sampled, mixed or dropped: a bounded number of bytes a row."""

import random
import tracemalloc
from array import array

import pytest

from tuneyard.compiler.engine import run
from tuneyard.compiler.engine.compile_file import FileJob
from tuneyard.compiler.engine.request import CompileJob, CompileReport, CompileRequest
from tuneyard.compiler.engine.row_loop import FileResult
from tuneyard.compiler.engine.run import Run
from tuneyard.compiler.engine.two_passes import write_in_two_passes
from tuneyard.compiler.lint import matching
from tuneyard.compiler.lint.fingerprints import Fingerprints
from tuneyard.compiler.lint.runner import lint_splits
from tuneyard.compiler.lint.text_keys import cluster_key
from tuneyard.compiler.read.inputs import find_inputs
from tuneyard.compiler.rows import InList, Prefix
from tuneyard.compiler.rows.counts import Counts
from tuneyard.compiler.rows.problems import NO_LIMIT, Problems
from tuneyard.compiler.spec.load import load_spec
from tuneyard.compiler.spec.model import Split

MOST = 40  # bytes a row
FEW, MANY = 10_000, 30_000  # rows
BATCH = 500
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
    """In place of `compile_file`: distinct rows of a list in a document, which no file is read for."""

    count = 0

    def __call__(self, file_job: FileJob) -> FileResult:
        seen = Fingerprints()
        self.add_rows(random.Random(1), file_job.job.spec.split or Split({}), seen, file_job.files)
        counts = Counts(read=self.count, kept=self.count)
        return FileResult(Problems(), fingerprints=seen, counts=counts)

    def add_rows(self, draw, split, seen, files) -> None:
        """As `Lint` does: the columns of a split are only filled for a split that needs them."""
        for start in range(0, self.count, BATCH):
            rows = range(start, start + BATCH)
            keys = [draw.getrandbits(63) for _ in rows]
            columns = {
                "prompts": keys,
                "answers": [key >> 31 for key in keys],
                "lengths": [key % 500 for key in keys],
            }
            if split.by_hash:
                columns["stable"] = keys
            if split.group:
                columns["clusters"] = [cluster_key(f"page {row // 2}") for row in rows]
            lines = [InList(row // 3, row, "data.rows[", "]") for row in rows]
            seen.add(Prefix("file"), lines, columns)
            if split.stratify:
                seen.add_values("classes", [f"kind {row % 5}" for row in rows])
            for file in files:
                lines = [b'{"instruction":"q%d","input":"","output":"a"}\n' % row for row in rows]
                file.add(b"".join(lines), array("Q", rows))


@pytest.mark.parametrize("setting", SPECS)
def test_rows_of_two_passes_take_few_bytes_each(bench, monkeypatch, setting):
    monkeypatch.setattr(run, "compile_file", Rows())
    monkeypatch.setattr(matching, "FEW", 1)  # as of a large dataset
    part = bench.write("part.yaml", f"about: a part\n{WHOLE}")
    source = bench.rows("a.jsonl", [{}])
    peaks = {}
    for rows in (BATCH, FEW, MANY):  # the first one fills caches
        monkeypatch.setattr(Rows, "count", rows)
        text = SPECS[setting].replace("PART", str(part)).replace("TOTAL", str(rows * 9 // 10))
        spec = bench.write("t.yaml", f"about: a test\n{text}")
        loaded = load_spec(str(spec))
        inputs = find_inputs(loaded, [f"train={source}"])
        problems = Problems(NO_LIMIT)
        staged = bench.folder / f"staged {rows}"
        staged.mkdir()
        report = CompileReport(name="t", problems=problems)
        compile_run = Run(CompileJob(loaded, CompileRequest(loaded), inputs, ()), staged, report)
        tracemalloc.start()
        try:
            write_in_two_passes(compile_run, None)
            lint_splits(loaded, compile_run.fingerprints, problems)
            peaks[rows] = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
        assert report.read == report.kept + report.not_sampled == rows
        assert sum(seen.rows for seen in compile_run.fingerprints.values()) == report.kept >= rows * 0.3
    assert (peaks[MANY] - peaks[FEW]) / (MANY - FEW) <= MOST
