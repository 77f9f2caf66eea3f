"""What `recipes train` settles before it touches an output_dir."""

import json

import pytest

from core.errors import ContentError, RequestError
from recipes.model import require_model
from recipes.output import RUN, STARTED
from recipes.recipe import read_recipe
from recipes.record import inputs_of
from recipes.train import train_seeds
from recipes.training import train


@pytest.fixture
def recipe(tmp_path, monkeypatch):
    """Return a recipe for a hub id, overwriting, where there is neither network nor cache."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    (tmp_path / "a.json").write_text('[{"instruction": "a", "output": "b"}]')
    (tmp_path / "dataset_info.json").write_text('{"a": {"file_name": "a.json"}}')
    settings = {
        "model_name_or_path": "nobody/nothing", "cache_dir": str(tmp_path / "hub"), "dataset": "a",
        "dataset_dir": str(tmp_path), "output_dir": str(tmp_path / "out"), "overwrite_output_dir": True,
        "stage": "sft", "do_train": True, "finetuning_type": "lora", "template": "qwen", "cutoff_len": 64,
    }  # fmt: skip
    path = tmp_path / "r.yaml"
    path.write_text(json.dumps(settings))
    return read_recipe(path)


def test_without_its_model_a_training_renames_and_writes_nothing(recipe, tmp_path):
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(RequestError, match=r"nobody/nothing: .*; give a local folder") as refused:
        train(recipe)
    assert "\n" not in str(refused.value)
    assert sorted(tmp_path.rglob("*")) == before
    recipe.output_dir.mkdir()
    (recipe.output_dir / STARTED).write_text('{"settings": {}}')
    with pytest.raises(RequestError, match="nobody/nothing"):
        train(recipe)
    assert not (tmp_path / "out.1").exists()
    assert [path.name for path in recipe.output_dir.iterdir()] == [STARTED]


def test_a_finished_run_needs_no_model(recipe, capsys):
    recipe.output_dir.mkdir()
    (recipe.output_dir / STARTED).write_text(json.dumps(inputs_of(recipe, None)))
    (recipe.output_dir / RUN).write_text("{}")
    train(recipe)
    assert "up to date" in capsys.readouterr().out


def test_seeds_count_from_a_number(recipe):
    for seed in ("abc", None, True):
        with pytest.raises(ContentError, match="seed: found"):
            train_seeds(recipe.with_settings({"seed": seed}), 2)


def test_weights_in_the_cache_will_do(recipe, tmp_path):
    cached = tmp_path / "hub/models--nobody--nothing"
    (cached / "snapshots/abc").mkdir(parents=True)
    (cached / "refs").mkdir()
    (cached / "refs/main").write_text("abc")
    (cached / "snapshots/abc/config.json").write_text("{}")
    with pytest.raises(RequestError, match="nobody/nothing"):
        require_model(recipe)
    (cached / "snapshots/abc/model.safetensors").write_bytes(b"")
    require_model(recipe)
