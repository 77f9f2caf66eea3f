"""The record of a training, and the hash of a model folder: of its model, and of nothing beside it."""

import os
from pathlib import Path

import pytest

from tests.messages import raises
from tuneyard.core.errors import ContentError
from tuneyard.core.files import write_json
from tuneyard.core.training.training_run import model_sha256, training_data


@pytest.mark.parametrize(
    "inputs",
    [{"settings": []}, {"data": {}}, {"data": ["a"]}, {"data": [{"dataset": "a", "file": 3}]}],
)
def test_a_part_of_another_type_is_named_with_its_file(tmp_path: Path, inputs: dict) -> None:
    write_json(tmp_path / "training.json", {"inputs": inputs})
    with raises(ContentError, tmp_path / "training.json", *inputs, "found"):
        training_data(tmp_path)


def test_files_and_folders_beside_the_model_do_not_change_its_hash(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "model.safetensors").write_bytes(b"weights")
    before = model_sha256(tmp_path)
    (tmp_path / "train.log").write_text("step 1")
    (tmp_path / "README.md").write_text("a model")
    (tmp_path / "checkpoints.json").mkdir()
    assert model_sha256(tmp_path) == before


def test_files_of_a_model_that_stay_as_they_are_are_read_once(tmp_path: Path) -> None:
    weights = tmp_path / "model.safetensors"
    weights.write_bytes(b"one")
    before, state = model_sha256(tmp_path), weights.stat()
    weights.write_bytes(b"two")
    os.utime(weights, ns=(state.st_atime_ns, state.st_mtime_ns))
    assert model_sha256(tmp_path) == before
    os.utime(weights)
    assert model_sha256(tmp_path) != before
