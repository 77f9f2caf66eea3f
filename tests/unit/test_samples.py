"""The bundled samples: the script beside them makes them, balanced, with no sentence on both sides."""

import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from tests.conftest import ROOT
from tests.json_files import read_lines

SAMPLES = ROOT / "samples"


def rows(name: str, part: str) -> list[dict[str, str]]:
    return read_lines(SAMPLES / name / f"{part}.jsonl")


def test_the_script_makes_the_same_bytes(tmp_path: Path) -> None:
    subprocess.run([sys.executable, SAMPLES / "generate.py", tmp_path], check=True)
    for name in ("rte", "mnli"):
        for part in ("train", "eval"):
            made = (tmp_path / name / f"{part}.jsonl").read_bytes()
            assert made == (SAMPLES / name / f"{part}.jsonl").read_bytes()
    assert (tmp_path / "tickets.csv").read_bytes() == (SAMPLES / "tickets.csv").read_bytes()


@pytest.mark.parametrize(("name", "labels"), [("rte", 2), ("mnli", 3)])
def test_labels_and_kinds_are_balanced(name: str, labels: int) -> None:
    for part in ("train", "eval"):
        found = rows(name, part)
        assert sorted(Counter(row["label"] for row in found).values()) == [len(found) / labels] * labels
        per_kind = Counter(row["kind"] for row in found).values()
        assert len(per_kind) == 4
        assert max(per_kind) - min(per_kind) <= labels


@pytest.mark.parametrize("name", ["rte", "mnli"])
def test_no_sentence_stands_in_train_and_eval(name: str) -> None:
    train, held_out = (
        {row[side] for row in rows(name, part) for side in ("premise", "hypothesis")}
        for part in ("train", "eval")
    )
    assert not train & held_out
