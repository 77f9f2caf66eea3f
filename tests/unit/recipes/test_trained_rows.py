"""The fingerprints that a training leaves: of its own rows, at its start, and nothing in their place."""

from pathlib import Path

import pytest
from xxhash import xxh3_64_intdigest

from tests.json_files import read_json, write_json
from tests.messages import printed, raises
from tests.unit.recipes.make import write_recipe
from tuneyard.core.datasets.trained_examples import read_trained_rows, write_trained_rows
from tuneyard.core.errors import ContentError
from tuneyard.core.files import write_text
from tuneyard.core.training.training_run import STARTED, TRAINED_ROWS
from tuneyard.recipes.output_dir.record import inputs_of
from tuneyard.recipes.output_dir.trained_rows import record_trained_rows
from tuneyard.recipes.recipe import Recipe, read_recipe
from tuneyard.recipes.training import train as training
from tuneyard.recipes.training.train import TrainRequest, train


def recorded(recipe: Recipe) -> list[int]:
    assert record_trained_rows(recipe, inputs_of(recipe, None)) == []
    rows = read_trained_rows(recipe.output_dir)
    assert rows is not None
    by_hash = {xxh3_64_intdigest(f"Q{n}".encode()): n for n in range(30)}
    return sorted(by_hash[row] for row in rows.tolist())


@pytest.fixture
def recipe_file(tmp_path: Path) -> Path:
    """A recipe of dataset a (Q0 … Q9) and b (Q10 … Q19), evaluated on c (Q20 … Q29)."""
    path = write_recipe(tmp_path, dataset="b,a", eval_dataset="c")
    write_json(tmp_path / "dataset_info.json", {name: {"file_name": f"{name}.json"} for name in "abc"})
    for first, name in enumerate("abc"):
        rows = [{"instruction": f"Q{n}", "output": "A"} for n in range(10 * first, 10 * first + 10)]
        write_json(tmp_path / f"{name}.json", rows)
    return path


def test_the_rows_of_the_datasets_are_recorded_without_those_of_the_evaluation(recipe_file: Path) -> None:
    assert recorded(read_recipe(recipe_file)) == list(range(20))
    few = read_recipe(recipe_file, ["max_samples=3", "output_dir=" + str(recipe_file.parent / "few")])
    assert recorded(few) == [0, 1, 2, 10, 11, 12]


def test_rows_that_val_size_holds_out_are_not_recorded(recipe_file: Path) -> None:
    recipe = read_recipe(recipe_file, ["eval_dataset=", "val_size=0.25", "seed=3"])
    order = [*range(10, 20), *range(10)]
    parts = pytest.importorskip("datasets").Dataset.from_dict({"n": order})
    assert recorded(recipe) == sorted(parts.train_test_split(test_size=0.25, seed=3)["train"]["n"])


def test_a_resumed_training_adds_to_the_rows_it_started_with(recipe_file: Path) -> None:
    recipe = read_recipe(recipe_file, ["dataset=b"])
    recorded(recipe)
    other = read_recipe(recipe_file, ["dataset=a"])
    assert recorded(other) == list(range(10)), "nothing had begun"
    write_text(recipe.output_dir / STARTED, "{}")
    assert recorded(recipe) == list(range(20))
    (recipe.output_dir / TRAINED_ROWS).write_bytes(b"")
    with raises(ContentError, recipe.output_dir / TRAINED_ROWS):
        record_trained_rows(recipe, inputs_of(recipe, None))


@pytest.mark.parametrize("entry", [{"hf_hub_url": "org/rows"}, {"script_url": "rows.py"}])
def test_rows_that_are_not_here_are_named_and_nothing_is_written(
    recipe_file: Path, entry: dict[str, str]
) -> None:
    registry = recipe_file.parent / "dataset_info.json"
    write_json(registry, {**read_json(registry), "a": entry})
    recipe = read_recipe(recipe_file)
    (note,) = record_trained_rows(recipe, inputs_of(recipe, None))
    printed(note, "not recorded", "a", *entry.values())
    assert not (recipe.output_dir / TRAINED_ROWS).exists()


def test_tokens_that_replace_the_datasets_are_named(recipe_file: Path) -> None:
    (recipe_file.parent / "tokens").mkdir()
    recipe = read_recipe(recipe_file, [f"tokenized_path={recipe_file.parent / 'tokens'}"])
    (note,) = record_trained_rows(recipe, inputs_of(recipe, None))
    printed(note, recipe_file.parent / "tokens")


def test_too_many_rows_are_no_error(recipe_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tuneyard.core.datasets.trained_examples.MOST_ROWS", 19)
    recipe = read_recipe(recipe_file)
    (note,) = record_trained_rows(recipe, inputs_of(recipe, None))
    printed(note, 20, 19)


def test_the_rows_are_there_before_the_training_begins(
    recipe_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = read_recipe(recipe_file)
    monkeypatch.setattr(training, "require_model", lambda _: None)

    def launch(_command: object, folder: Path, *_: object, **__: object) -> None:
        rows = read_trained_rows(folder)
        assert rows is not None
        raise ContentError(f"began with {len(rows)} rows, {STARTED} {(folder / STARTED).is_file()}")

    monkeypatch.setattr(training, "launch", launch)
    with raises(ContentError, "20 rows", "True"):
        train(TrainRequest(recipe, is_checked=True))


def test_the_trainer_does_not_push_the_file_to_a_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`push_to_hub: true`: transformers uploads the output_dir itself."""
    hub = pytest.importorskip("huggingface_hub")
    trainer = pytest.importorskip("transformers.trainer")
    import inspect
    import re

    write_trained_rows(tmp_path, [])
    (tmp_path / "adapter_config.json").write_text("{}")
    source = inspect.getsource(trainer)
    patterns = re.findall(r'ignore_patterns=\["(.+?)"', source)
    assert len(patterns) == 2, "of the last push, and of those in between"
    for pattern in patterns:
        names = [path.name for path in tmp_path.iterdir()]
        assert list(hub.utils.filter_repo_objects(names, ignore_patterns=[pattern])) == [
            "adapter_config.json"
        ]
