"""Files of the fuzzers' corpus, good or bad by their folder's name, against Python's json and csv."""

import csv
import io
import json
from pathlib import Path

import pytest

from tests.conftest import ROOT, Here
from tests.json_files import read_json
from tuneyard.compiler.cli import cli

CORPUS = ROOT / "tools/fuzz/corpus"
GOOD = sorted(CORPUS.glob("good-*/*"))
BAD = sorted(CORPUS.glob("bad-*/*"))
BROKEN_LINES = sorted(CORPUS.glob("bad-json/*"))
"""Each has one broken line between two good ones."""


def label(path: Path) -> str:
    return f"{path.parent.name}-{path.stem}"


def expected_texts(path: Path) -> list[list[str]]:
    """The first two values of each row, as Python reads them."""
    text = path.read_bytes().decode("utf-8-sig")
    if path.suffix == ".jsonl":
        rows = [json.loads(line) for line in text.split("\n") if line.strip(" \t\r\n")]
        return [[*row.values()][:2] for row in rows]
    table = csv.reader(io.StringIO(text, newline=""), strict=True)
    rows = [row for row in table if row not in ([], [""])]
    return [row[:2] for row in rows[1:]]


def test_the_corpus_is_here() -> None:
    assert len(GOOD) > 15 and len(BAD) > 50 and len(BROKEN_LINES) > 40


@pytest.mark.parametrize("path", GOOD, ids=label)
def test_a_good_file_has_the_texts_that_python_reads(path: Path, tmp_path: Path, here: Here) -> None:
    here(cli, "compile", "qa", "--source", path, "--out", tmp_path / "out")
    records = read_json(tmp_path / "out/qa/qa.json")
    assert [[record["instruction"], record["output"]] for record in records] == expected_texts(path)


@pytest.mark.parametrize("path", BAD, ids=label)
def test_a_bad_file_is_refused_and_leaves_nothing(path: Path, tmp_path: Path, here: Here) -> None:
    ended = here(cli, "compile", "qa", "--source", path, "--out", tmp_path / "out", code=1)
    assert path.name in ended.stderr and "Traceback" not in ended.stderr
    assert [file for file in tmp_path.rglob("*") if file.is_file()] == []


@pytest.mark.parametrize("path", BROKEN_LINES, ids=label)
def test_the_lines_around_a_broken_one_are_kept(path: Path, tmp_path: Path, here: Here) -> None:
    ended = here(cli, "compile", "qa", "--source", path, "--out", tmp_path / "out", "--on-error", "reject")
    assert f"{path.name}:2: E00" in ended.stderr
    records = read_json(tmp_path / "out/qa/qa.json")
    assert [record["instruction"] for record in records] == ["Good?", "Last?"]
    counts = read_json(tmp_path / "out/qa/manifest.json")["counts"]
    assert (counts["read"], counts["kept"], counts["rejected"]) == (3, 2, 1)
