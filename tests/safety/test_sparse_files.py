"""A sparse file of 5 GB takes no disk. Reading it ends in a message with its place, in 3 GB of addresses.

SECURITY.md, "Texts".
"""

import ast
import json
import os
import random
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from tests.messages import raises
from tests.unit.test_house import FILES, name, nodes
from tuneyard.core.datasets import read_records
from tuneyard.core.documents import json_items
from tuneyard.core.errors import ContentError
from tuneyard.core.files.bounded_reading import LARGEST_FILE, LARGEST_RECORD, read_end
from tuneyard.eval.runs.tables import csv_rows

SIZE = 5_000_000_000
ADDRESSES = 3_000_000_000

READERS = {
    "registry": ("dataset_info.json", b'{"a": "', "core.files.read_object(path)"),
    "manifest": ("manifest.json", b"{", "core.datasets.compiled.read_manifest(path.parent)"),
    "adapter_config": ("adapter_config.json", b"", "core.files.read_json(path)"),
    "records in lines": ("a.jsonl", b'{"a": 1}\n{"b": "', "core.datasets.read_records(path)"),
    "records in a list": ("a.json", b'[{"a": 1}, {"b": "', "core.datasets.read_records(path)"),
    "a list of blanks": ("a.json", b"[" + b" " * 1000, "core.datasets.read_records(path)"),
    "predictions": ("predictions.jsonl", b"", "eval.runs.results.read_lines(path)"),
    "token losses": ("token_losses.jsonl", b"", "core.llamafactory.prompt.token_losses.TokenLossFile(path)"),
    "log of CSV": ("log.csv", b"id,gold,prediction\n1,a,", "list(eval.runs.tables.TABLES['.csv'](path))"),
    "header of CSV": ("log.csv", b"", "list(eval.runs.tables.TABLES['.csv'](path))"),
    "rating sheet": ("s.csv", b"id," * 50_000, "list(eval.ab.sheet.read_rows(path))"),
    "prompts": ("p.txt", b"Hello\n", "eval.data.dataset.read_rows(path)"),
    "Modelfile": ("Modelfile", b"FROM x\n", "eval.prove.modelfile.read_modelfile(path)"),
    "card": ("README.md", b"---\n", "adapters.export.source.front_matter(path.parent)"),
}

CHILD = """
import importlib, resource, sys
from pathlib import Path
resource.setrlimit(resource.RLIMIT_AS, (%d, %d))
from tuneyard import core, eval
for module in %r:
    importlib.import_module(f"tuneyard.{module}")
from tuneyard import adapters
from tuneyard.core.errors import ContentError
path = Path(sys.argv[1])
try:
    %s
except ContentError as error:
    print(error)
"""
MODULES = (
    "adapters.export.source",
    "core.datasets.compiled",
    "core.llamafactory.prompt.token_losses",
    "eval.prove.modelfile",
    "eval.data.dataset",
    "eval.runs.results",
    "eval.runs.tables",
    "eval.ab.sheet",
)


@pytest.mark.threat("limits", "adapter show", "adapter export", "data list", "data stats", "data verify")
@pytest.mark.threat(
    "limits", "eval compare", "eval ab tally", "eval nli", "eval qa", "eval text", "eval chat"
)
@pytest.mark.parametrize("case", READERS)
def test_a_sparse_file_is_refused_with_its_place(tmp_path: Path, case: str) -> None:
    file_name, begin, call = READERS[case]
    path = tmp_path / file_name
    path.write_bytes(begin)
    os.truncate(path, SIZE)
    script = textwrap.dedent(CHILD) % (ADDRESSES, ADDRESSES, MODULES, call)
    process = subprocess.run(
        [sys.executable, "-c", script, path],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env={**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"},
    )
    assert process.stderr == ""
    assert process.stdout.startswith(str(path)), process.stdout


def test_a_log_is_read_from_its_end(tmp_path: Path) -> None:
    path = tmp_path / "train.log"
    path.write_bytes(b"first\n")
    os.truncate(path, SIZE)
    with path.open("ab") as file:
        file.write(b"\nlast line\n")
    text = read_end(path)
    assert text.endswith("\nlast line\n") and len(text) == 16 * 1024 * 1024
    assert read_end(path, SIZE + 1) == "last line\n"


def test_data_is_not_refused_for_its_size(tmp_path: Path) -> None:
    """80 MiB of records of 1 MiB: more than a document may have, each less than a record may have."""
    text = "x" * (1 << 20)
    records = [{"id": number, "text": text} for number in range(80)]
    (tmp_path / "a.json").write_text(json.dumps(records))
    (tmp_path / "a.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    (tmp_path / "a.csv").write_text("id,text\n" + "".join(f"{number},{text}\n" for number in range(80)))
    assert LARGEST_FILE < 80 << 20
    assert read_records(tmp_path / "a.json") == records
    assert read_records(tmp_path / "a.jsonl") == records
    assert [len(cells[1]) for _, cells in csv_rows(tmp_path / "a.csv")] == [4, *[1 << 20] * 80]


def test_a_row_of_many_lines_ends(tmp_path: Path) -> None:
    """Each cell is within its limit, the row is not."""
    cell = '"' + "x" * 1000 + '\n",'
    (tmp_path / "a.csv").write_text(cell * 20_000)
    with raises(ContentError, "a.csv", "16"):
        list(csv_rows(tmp_path / "a.csv"))


def value(source: random.Random, depth: int = 0) -> object:
    kind = source.randrange(8 if depth < 3 else 5)
    if kind == 0:
        return source.choice([None, True, False, 0, -1, 1.5e10, 12345678901234567890])
    if kind < 5:
        letters = ["a", '"', "\\", "\n", "é", "𝄞", "]", ",", "{"]
        return "".join(source.choices(letters, k=source.choice([0, 3, 50, 300_000 if depth == 2 else 9])))
    items = [value(source, depth + 1) for _ in range(source.randrange(4))]
    return items if kind == 5 else {str(number): item for number, item in enumerate(items)}


@pytest.mark.parametrize("seed", range(12))
def test_a_list_is_read_as_by_the_standard_library(tmp_path: Path, seed: int) -> None:
    """Of several blocks; the escapes of surrogates, numbers and texts are cut in all places."""
    source = random.Random(seed)
    values = [value(source) for _ in range(source.choice([0, 1, 400]))]
    text = json.dumps(values, indent=source.choice([None, 0, 3]), ensure_ascii=seed % 2 == 0)
    path = tmp_path / "a.json"
    path.write_text(source.choice(["", "\ufeff"]) + source.choice(["", " \r\n\t"]) + text + "\n ", "utf-8")
    assert list(json_items(path)) == values


@pytest.mark.parametrize(
    ("text", "facts"),
    [
        ('[{"a": 1},\n]', "a.json:2; comma"),
        ('[{"a": 1}\n {"a": 2}]', "a.json:2; column 2"),
        ('[{"a": 1}] x', "a.json:1; column 12"),
        ('[{"a": 1}, {"b" 2}]', "a.json:1; column 17"),
        ('[{"a": 1},\n {"b": "x', "a.json:2; column 8"),
        ('[{"a": 1}', "a.json:1"),
        ("[", "a.json:1"),
        ("[" * 200_000, "a.json; deep"),
        ("[{" + '"a": ' + "9" * 5000 + "}]", "a.json; digits"),
    ],
)
def test_a_broken_list_is_named_by_line_and_column(tmp_path: Path, text: str, facts: str) -> None:
    (tmp_path / "a.json").write_text(text)
    with raises(ContentError, *facts.split("; ")):
        list(json_items(tmp_path / "a.json"))


def test_a_fault_after_many_blocks_has_its_line(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text("[\n" + '{"a": "xxxxxxxxxxxxxxxxxxxx"},\n' * 100_000 + '{"a" 1}]')
    with raises(ContentError, "a.json:100002", "column 6"):
        list(json_items(tmp_path / "a.json"))


def test_a_large_item_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text('[1,\n"' + "x" * (LARGEST_RECORD + (1 << 21)) + '"]')
    with raises(ContentError, "a.json", "record 2", "16"):
        list(json_items(tmp_path / "a.json"))


OWN = {  # the readers themselves, files of the package, of the system, and of the user's own cache
    "core/files/bounded_reading.py", "tuneyard/demo.py", "core/cli/main.py",
    "core/datasets/bundled_recipes.py",
    "core/drawing/page.py", "core/execution/machine_limits.py", "core/installation/checkout.py",
    "core/cli/doctor.py", "core/cli/explain.py", "core/weights/class_defaults.py",
    "recipes/llamafactory/cache.py", "recipes/machine/hardware.py", "compiler/spec/file.py",
    "compiler/write/record_file.py",
}  # fmt: skip


def test_no_other_place_reads_a_file_whole() -> None:
    places = set()
    for path in FILES:
        for node in nodes(path):
            if isinstance(node, ast.Attribute) and node.attr in ("read_text", "read_bytes"):
                places.add(name(path))
    assert places - OWN == set()
