"""A data file that a registry names is bounded before LLaMA-Factory's loader reads it.

SECURITY.md, "Texts". The loader unpacks groups of Parquet and archives whole, whatever they are called.
"""

import bz2
import gzip
import io
import json
import os
import resource
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pytest

from tests.messages import raises
from tests.safety.test_rows_in_bounded_memory import FILES as ROWS
from tests.safety.test_rows_in_bounded_memory import arrow, parquet, repeated
from tests.unit.compiler.conftest import as_zst
from tuneyard.core.files.bounded_reading import UnboundedError
from tuneyard.core.llamafactory.data_files import check_data_files
from tuneyard.core.llamafactory.loader import RecipeData

Write = Callable[[Path], None]
ROW = b'{"instruction": "a", "output": "b"}\n'
WIDE = 50_000
ADDRESSES = 8_000_000_000  # torch takes 3 GB


def text(content: str | bytes) -> Write:
    return lambda path: (
        Path(path).write_bytes(content.encode() if isinstance(content, str) else content) and None
    )


def sparse(begin: bytes, size: int = 1 << 30) -> Write:
    def write(path: Path) -> None:
        with path.open("wb") as file:
            file.write(begin)
            file.truncate(size)

    return write


def tar(path: Path) -> None:
    with tarfile.open(path, "w") as archive:
        member = tarfile.TarInfo("a.jsonl")
        member.size = len(ROW)
        archive.addfile(member, io.BytesIO(ROW))


def rows_before_archive(path: Path) -> None:
    """A zip archive is found by its end."""
    path.write_bytes(ROW)
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("a.jsonl", ROW)


def pretty(count: int) -> str:
    """An object that pandas reads as a column for each key, and a row for each key inside."""
    values = (f'"c{number}": {{"k{number}":\n{number}}}' for number in range(count))
    return "{\n" + ",\n".join(values) + "}"


KEYS = [f'{{"k{number}": 1}}' for number in range(WIDE)]
INNER = [f'{{"a": [{{"k{number}": 1}}]}}' for number in range(WIDE)]
NAMES = ",".join(f"c{number}" for number in range(WIDE))
MANY = ",".join(f'"{number}":1' for number in range(1_050_000))
FILES: dict[str, tuple[str, Callable[[], Write], str]] = {
    "a dictionary of Parquet": ("a.parquet", lambda: parquet(repeated("x" * 2000, 12_000_000)), "times"),
    "a large text in Parquet": ("a.parquet", lambda: parquet(repeated("x" * 8_000_000, 2000)), "1,024"),
    "runs in Parquet": ("a.parquet", lambda: parquet(pa.array(np.zeros(1 << 24, np.int8))), "times"),
    "a dictionary of Arrow": ("a.arrow", lambda: arrow(repeated("x" * 8_000_000, 5000), "zstd"), "1,024"),
    "no Parquet": ("a.parquet", lambda: text(b"PAR1" + bytes(100) + b"PAR1"), "Parquet"),
    "keys of an array": ("a.json", lambda: text("[" + ",".join(KEYS) + "]"), "times"),
    "keys of lines": ("a.jsonl", lambda: text("\n".join(KEYS)), "times"),
    "keys inside of lists": ("a.jsonl", lambda: text("\n".join(INNER)), "times"),
    "keys of keys": ("a.json", lambda: text(pretty(20_000)), "times"),
    "too many keys": ("a.json", lambda: text("{" + MANY + "}"), "1,000,000"),
    "a header of CSV": ("a.csv", lambda: text(NAMES + "\n" + "1\n" * 20_000), "times"),
    "a header of CSV with other breaks": ("a.csv", lambda: text(NAMES + "\r" + "1\r" * 20_000), "times"),
    "a header of CSV on many lines": (
        "a.csv",
        lambda: text('"\n",' * WIDE + "a\n" + "1\n" * 20_000),
        "times",
    ),
    "a first row of CSV": ("a.csv", lambda: text("a\n" + "," * WIDE + "\n" + "1\n" * 20_000), "times"),
    "a gap after lines": ("a.jsonl", lambda: sparse(ROW), "16"),
    "a gap in a text": ("a.json", lambda: sparse(b'[{"instruction": "'), "16"),
    "a gap in a list": ("a.json", lambda: sparse(b"[1"), "16"),
    "a gap in CSV": ("a.csv", lambda: sparse(b"a,b\n"), "16"),
    "a gap in a text file": ("a.txt", lambda: sparse(b"a\n"), "16"),
    "gzip": ("a.jsonl", lambda: text(gzip.compress(ROW)), "gzip"),
    "bzip2": ("a.json", lambda: text(bz2.compress(ROW)), "bzip2"),
    "zstd": ("a.csv", lambda: text(as_zst(ROW)), "zstd"),
    "tar": ("a.txt", lambda: tar, "tar"),
    "zip after rows": ("a.jsonl", lambda: rows_before_archive, "zip"),
}


@pytest.mark.parametrize("case", FILES)
def test_a_file_that_would_fill_the_memory_is_refused(tmp_path: Path, case: str) -> None:
    name, writer, word = FILES[case]
    path = tmp_path / name
    writer()(path)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with raises(UnboundedError, f"{path}", word):
        check_data_files(path)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 600_000


SMALLER = ("Parquet: wide values", "Parquet: delta texts")  # 0.4 GB once unpacked, which the loader may
COLUMNS = [
    case for case, (name, _, _) in ROWS.items() if name in ("a.parquet", "a.arrow") and case not in SMALLER
]


@pytest.mark.parametrize("case", COLUMNS)
def test_a_file_that_no_reader_takes_is_refused(tmp_path: Path, case: str) -> None:
    name, writer, _ = ROWS[case]
    path = tmp_path / name
    writer()(path)
    with raises(UnboundedError, f"{path}"):
        check_data_files(path)


def test_each_file_of_a_folder_is_looked_at(tmp_path: Path) -> None:
    (tmp_path / "rows").mkdir()
    (tmp_path / "rows/a.jsonl").write_bytes(ROW)
    (tmp_path / "rows/b.jsonl").write_bytes(gzip.compress(ROW))
    with raises(UnboundedError, f"{tmp_path}/rows/b.jsonl", "gzip"):
        check_data_files(tmp_path / "rows")


def test_a_name_with_a_star_is_a_pattern(tmp_path: Path) -> None:
    """`datasets` reads each file that it matches."""
    (tmp_path / "*.jsonl").write_bytes(ROW)
    (tmp_path / "b.jsonl").write_bytes(gzip.compress(ROW))
    with raises(UnboundedError, f"{tmp_path}/b.jsonl", "gzip"):
        check_data_files(tmp_path / "*.jsonl")


def test_a_file_is_looked_at_again_once_it_is_another(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_bytes(ROW)
    check_data_files(path)
    path.write_bytes(gzip.compress(ROW))
    with raises(UnboundedError, "gzip"):
        check_data_files(path)


def test_what_people_train_on_is_bounded(tmp_path: Path) -> None:
    """Tools with hundreds of names, a system text in every row, code with quotes, a large file."""
    tools = [{"name": f"f{n}", "arguments": {f"p{n}": 1, f"q{n % 7}": "x"}} for n in range(300)]
    records = [
        {"instruction": '"\\" {"a": 1}' * 9, "tools": [tools[n % 300]], "output": "x" * 99}
        for n in range(20_000)
    ]
    (tmp_path / "a.json").write_text(json.dumps(records))
    (tmp_path / "a.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    (tmp_path / "a.csv").write_text("a,b,c\n" + '"x\ny",2,3\n' * 200_000)
    (tmp_path / "empty.json").write_text("")
    (tmp_path / "long.jsonl").write_text(json.dumps({"a": "x" * 15_000_000}) + "\n")
    table = pa.table(
        {"system": ["You are an assistant. " * 50] * 200_000, "a": [str(n) for n in range(200_000)]}
    )
    pyarrow.parquet.write_table(table, tmp_path / "a.parquet")
    for name in ("a.json", "a.jsonl", "a.csv", "empty.json", "long.jsonl", "a.parquet"):
        check_data_files(tmp_path / name)
    (tmp_path / "packed.jsonl").write_bytes(gzip.compress((tmp_path / "a.jsonl").read_bytes()))
    with raises(UnboundedError, "packed.jsonl", "gzip"):
        check_data_files(tmp_path / "packed.jsonl")


def test_the_loader_is_not_given_it(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_bytes(gzip.compress(ROW))
    data = RecipeData(None, SimpleNamespace(dataset_dir=str(tmp_path)), None, None)
    with (
        raises(UnboundedError, "gzip"),
        data.loading(SimpleNamespace(load_from="file", dataset_name="a.jsonl")),
    ):
        pytest.fail("the loader would be called")


COMMANDS = {
    "data verify": "data verify bomb --dataset-dir .",
    "data view": "data view bomb --recipe r.yaml --dataset-dir .",
    "recipe check": "recipe check r.yaml",
    "recipe plan": "recipe plan r.yaml",
}


@pytest.mark.slow
@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_refuses_it_in_bounded_memory(tmp_path: Path, tiny_model: Path, command: str) -> None:
    parquet(repeated("x" * 8_000_000, 2000))(tmp_path / "bomb.parquet")
    entry = {"file_name": "bomb.parquet", "columns": {"prompt": "question"}}
    (tmp_path / "dataset_info.json").write_text(json.dumps({"bomb": entry}))
    recipe = {
        "model_name_or_path": str(tiny_model),
        "dataset": "bomb",
        "dataset_dir": ".",
        "template": "default",
    }
    recipe |= {"stage": "sft", "do_train": True, "finetuning_type": "lora", "output_dir": "out"}
    (tmp_path / "r.yaml").write_text(json.dumps(recipe))
    done = subprocess.run(
        [sys.executable, "-m", "tuneyard", *COMMANDS[command].split()],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        cwd=tmp_path,
        env={**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"},
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_AS, (ADDRESSES, ADDRESSES)),
    )
    text_shown = done.stdout + done.stderr
    assert done.returncode == 1 and "Traceback" not in text_shown, text_shown
    assert "bomb.parquet" in text_shown and "MiB" in text_shown
