"""The fingerprints of training rows go into what is made of weights, and not to a hub without a word."""

import shutil
from pathlib import Path

import numpy as np
import pytest

from tests.json_files import write_json
from tests.messages import printed, printed_line
from tests.unit.adapters.commands import call
from tests.unit.adapters.make import base_tensors, make_base
from tuneyard.core.datasets.trained_examples import read_trained_rows, write_trained_rows
from tuneyard.core.training.training_run import TRAINED_ROWS

pytestmark = pytest.mark.usefixtures("two_adapters")

FUSE = ("fuse", "rte=0.5", "mnli=0.5", "--base", "base", "--out", "out")
MERGE = ("merge", "rte=0.5", "mnli=0.5", "--out", "out")
HUB = ("export", "rte", "--to", "hub", "--repo", "org/x", "--license", "mit", "--dry-run")


def keep(folder: str, *numbers: int) -> None:
    write_trained_rows(Path(folder), [np.array(numbers, np.uint64)])


def kept(folder: str) -> list[int] | None:
    rows = read_trained_rows(Path(folder))
    return None if rows is None else rows.tolist()


@pytest.mark.parametrize("command", [MERGE, FUSE])
def test_what_is_made_of_two_has_the_rows_of_both_and_the_same_weights(command: tuple[str, ...]) -> None:
    call(*command)
    weights = {path.name: path.read_bytes() for path in Path("out").glob("*.safetensors")}
    assert weights and kept("out") is None
    shutil.rmtree("out")
    keep("saves/rte", 9, 2)
    keep("saves/mnli", 5, 2)
    call(*command)
    assert kept("out") == [2, 5, 9]
    assert {path.name: path.read_bytes() for path in Path("out").glob("*.safetensors")} == weights
    printed_line(call(*command)[0], "out", "up to date")
    call(*command, "--force")
    assert kept("out") == [2, 5, 9]


@pytest.mark.parametrize("command", [MERGE, FUSE])
def test_without_a_record_of_each_there_is_none(command: tuple[str, ...]) -> None:
    keep("saves/rte", 9, 2)
    call(*command)
    assert kept("out") is None


@pytest.mark.parametrize("command", [MERGE, FUSE])
def test_a_broken_file_stops_nothing_and_is_named(command: tuple[str, ...]) -> None:
    keep("saves/rte", 9, 2)
    Path("saves/mnli", TRAINED_ROWS).write_bytes(b"PK")
    _out, notes = call(*command)
    printed_line(notes, f"saves/mnli/{TRAINED_ROWS}", "no record")
    assert kept("out") is None


def test_a_fused_model_has_the_rows_of_its_base_too() -> None:
    keep("base", 1)
    keep("saves/rte", 9)
    call("fuse", "rte", "--base", "base", "--out", "out")
    assert kept("out") == [1, 9]


def test_the_rows_of_the_base_alone_are_not_those_of_the_fused_model() -> None:
    keep("base", 1)
    call("fuse", "rte", "--base", "base", "--out", "out")
    assert kept("out") is None


def test_the_rows_of_a_trained_base_that_left_none_are_unknown() -> None:
    write_json(Path("base/training.json"), {"inputs": {"settings": {"dataset": "x"}, "data": []}})
    keep("saves/rte", 9)
    call("fuse", "rte", "--base", "base", "--out", "out")
    assert kept("out") is None


def test_an_extracted_adapter_has_the_rows_of_its_model() -> None:
    tensors = base_tensors()
    for name in tensors:
        if name.endswith("_proj.weight"):
            tensors[name] = tensors[name] * 1.5
    make_base("tuned", tensors)
    keep("tuned", 4)
    call("extract", "tuned", "--base", "base", "--rank", "2", "--out", "out")
    assert kept("out") == [4]


def test_the_hub_gets_no_fingerprints_unless_told() -> None:
    keep("saves/rte", 9)
    said, notes = call(*HUB)
    assert TRAINED_ROWS not in said
    printed_line(notes, "not uploaded", TRAINED_ROWS)
    said, notes = call(*HUB, "--with-fingerprints")
    printed_line(said, "136", TRAINED_ROWS)  # a header of 128 bytes, and 8 a row
    assert TRAINED_ROWS not in notes


def test_a_fused_model_goes_to_the_hub_without_fingerprints() -> None:
    keep("saves/rte", 9)
    call("fuse", "rte", "--base", "base", "--out", "out")
    said, notes = call("export", "out", *HUB[2:])
    assert TRAINED_ROWS not in said
    printed_line(notes, "not uploaded", TRAINED_ROWS)
    assert TRAINED_ROWS in call("export", "out", *HUB[2:], "--with-fingerprints")[0]


def test_fingerprints_that_are_not_there_or_broken_are_not_uploaded() -> None:
    printed(call(*HUB, "--with-fingerprints", code=2)[1], "saves/rte", TRAINED_ROWS)
    Path("saves/rte", TRAINED_ROWS).write_bytes(b"secret")
    printed(call(*HUB, "--with-fingerprints", code=1)[1], f"saves/rte/{TRAINED_ROWS}")
    Path("saves/rte", TRAINED_ROWS).unlink()
    Path("secret").write_bytes(b"secret")
    Path("saves/rte", TRAINED_ROWS).symlink_to(Path("secret").resolve())
    printed(call(*HUB, "--with-fingerprints", code=1)[1], "link", f"saves/rte/{TRAINED_ROWS}")


def test_other_targets_take_no_fingerprints() -> None:
    message = call("export", "rte", "--to", "gguf", "--out", "x.gguf", "--with-fingerprints", code=2)[1]
    printed(message, "--with-fingerprints", "hub", "gguf")
