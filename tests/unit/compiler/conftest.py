"""Small rows of our own, written in every layout, and a compile in one call."""

import csv
import gzip
import io
import json
import zipfile
from pathlib import Path

import pytest

from tests.json_files import read_json
from tuneyard.compiler.engine.request import CompileReport, CompileRequest
from tuneyard.compiler.publish.compile import compile_dataset
from tuneyard.compiler.spec.load import load_spec
from tuneyard.core.datasets import read_records

ROWS = [
    {"sentence1": 'A "red" fox ran.', "sentence2": "An animal ran.", "label": 0, "idx": 0},
    {"sentence1": "Drei Äpfel, 三个苹果\t(3).", "sentence2": "Two apples.", "label": 1, "idx": 1},
    {"sentence1": "No one came to 50% of it.", "sentence2": 'They said "no".', "label": 1, "idx": 2},
]


def questions(count: int) -> list[dict]:
    """Return rows with a question and an answer each."""
    return [{"question": f"Q{n}?", "answer": f"A{n}."} for n in range(count)]


def exchange(question: str, answer: str) -> list[dict]:
    """Return the turns of a question and its answer."""
    return [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]


def spoken(record: dict) -> list[tuple[str, str]]:
    """Return the turns of a record as (role, text)."""
    roles = {"human": "user", "gpt": "assistant"}
    return [(roles[turn["from"]], turn["value"]) for turn in record["conversations"]]


def json_lines(rows: list[dict]) -> str:
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


class Bench:
    """A folder to write sources into and to compile from."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.out = folder / "out"

    def write(self, name: str, data: str | bytes) -> Path:
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data.encode() if isinstance(data, str) else data)
        return path

    def rows(self, name: str, rows: list[dict]) -> Path:
        return self.write(name, json_lines(rows))

    def workbook(self, name: str, *sheets: list) -> Path:
        """Write an Excel file of sheets with these rows."""
        openpyxl = pytest.importorskip("openpyxl")
        book = openpyxl.Workbook()
        book.remove(book.active)
        for rows in sheets:
            sheet = book.create_sheet()
            for row in rows:
                sheet.append(row)
        book.save(self.folder / name)
        return self.folder / name

    def compile(self, spec: str | Path, *sources: object, **options) -> CompileReport:
        """Compile by a spec: its name, its path, or the text of one."""
        if isinstance(spec, str) and "\n" in spec:
            spec = self.write("spec.yaml", spec)
        options.setdefault("out", self.out)
        return compile_dataset(
            CompileRequest(load_spec(str(spec)), sources=tuple(map(str, sources)), **options)
        )

    def compile_rows(self, spec: str | Path, rows: list[dict], **options) -> CompileReport:
        """Compile with a source `train.jsonl` of these rows."""
        return self.compile(spec, self.rows("train.jsonl", rows), **options)

    def records(self, name: str) -> list[dict]:
        return read_records(next(self.out.rglob(name)))

    def first(self, name: str) -> dict:
        """Return the first record of a file."""
        return self.records(name)[0]

    def values(self, name: str, key: str) -> list:
        """Return what each record of a file has under a key."""
        return [record[key] for record in self.records(name)]

    def manifest(self, name: str) -> dict:
        return read_json(self.out / name / "manifest.json")

    def registry(self) -> dict:
        return read_json(self.out / "dataset_info.json")

    def codes(self, report: CompileReport) -> list[tuple[str, str]]:
        """Return (code, place below the folder) of every problem and warning."""
        found = [*report.problems.errors, *report.problems.warnings]
        return [(problem.code, problem.place.removeprefix(f"{self.folder}/")) for problem in found]


def error_codes(report: CompileReport) -> list[str]:
    return [problem.code for problem in report.problems.errors]


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


@pytest.fixture
def rte_source(bench: Bench) -> Path:
    """The source of a dataset `rte` that is compiled already."""
    source = bench.rows("train.jsonl", ROWS)
    bench.compile("rte", source)
    return source


def as_csv(rows: list[dict], **options) -> str:
    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]), **options)
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def as_parquet(rows: list[dict], group: int | None = None) -> bytes:
    import pyarrow
    import pyarrow.parquet

    buffer = io.BytesIO()
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), buffer, row_group_size=group)
    return buffer.getvalue()


def as_zst(data: bytes) -> bytes:
    import pyarrow

    packed: bytes = pyarrow.compress(data, codec="zstd", asbytes=True)
    return packed


def as_zip(files: dict[str, str | bytes]) -> bytes:
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return data.getvalue()


def layouts(rows: list[dict]) -> dict[str, bytes]:
    """Return the same rows in every layout that the compiler reads, by file name."""
    lines = json_lines(rows)
    objects = {str(number): row for number, row in enumerate(rows)}
    texts = {
        "lines.jsonl": lines,
        "escaped.jsonl": "".join(json.dumps(row) + "\n" for row in rows),
        "crlf.jsonl": lines.replace("\n", "\r\n"),
        "bom.jsonl": "\ufeff" + lines,
        "blank.jsonl": "\n" + lines.replace("\n", "\n\n"),
        "open.jsonl": lines.rstrip("\n"),
        "lines.json": lines,
        "array.json": json.dumps(rows, ensure_ascii=False),
        "pretty.json": json.dumps(rows, ensure_ascii=False, indent=2),
        "array.jsonl": json.dumps(rows, ensure_ascii=False),
        "object.json": json.dumps(objects, ensure_ascii=False),
        "object-pretty.json": json.dumps(objects, ensure_ascii=False, indent=1),
        "table.csv": as_csv(rows),
        "table-lf.csv": as_csv(rows, lineterminator="\n"),
    }
    files = {name: text.encode() for name, text in texts.items()}
    files["table.parquet"] = as_parquet(rows)
    files["lines.jsonl.gz"] = gzip.compress(files["lines.jsonl"])
    files["members.jsonl.gz"] = b"".join(gzip.compress(line) for line in lines.encode().splitlines(True))
    files["table.csv.zst"] = as_zst(files["table.csv"])
    files["array.json.zst"] = as_zst(files["array.json"][:20]) + as_zst(files["array.json"][20:])
    files["table.parquet.gz"] = gzip.compress(files["table.parquet"])
    files["table.parquet.zst"] = as_zst(files["table.parquet"])
    return files
