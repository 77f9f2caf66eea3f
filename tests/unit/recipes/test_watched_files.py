"""`recipe check --watch`: what is checked again, and when it ends."""

from pathlib import Path

import pytest

from tests.cli.scoring import invoke
from tests.unit.recipes.make import write_recipe
from tuneyard.recipes.check import checked
from tuneyard.recipes.check import command as check
from tuneyard.recipes.check.watched_files import states_of, watched_files
from tuneyard.recipes.llamafactory.answer import Facts
from tuneyard.recipes.recipe import read_recipe


@pytest.fixture
def sound_recipe(tmp_path, monkeypatch):
    """Return the path of a sound recipe; LLaMA-Factory has nothing to say about it."""
    monkeypatch.setattr(checked, "ask", lambda *_: Facts(template_error="none"))
    return write_recipe(tmp_path, save_strategy="epoch")


def watched(monkeypatch, paths, edits) -> str:
    """Return what is printed while these edits are made, one between two looks, and then Ctrl-C."""
    waiting = iter(edits)

    def edit(_seconds: float) -> None:
        change = next(waiting, None)
        if change is None:
            raise KeyboardInterrupt
        change()

    monkeypatch.setattr(check.time, "sleep", edit)
    done = invoke(check.command, "--watch", *paths)
    assert done.exit_code == 1 and isinstance(done.exception, SystemExit)  # 130 in a shell
    return done.output


def test_a_recipe_is_checked_again_after_each_edit_and_not_otherwise(sound_recipe, monkeypatch):
    text = sound_recipe.read_text()
    edits = [
        lambda: None,
        lambda: sound_recipe.write_text(f"{text}\nlearning_rat: 0.1\n"),
        lambda: None,
        lambda: sound_recipe.write_text(text),
    ]
    output = watched(monkeypatch, [sound_recipe], edits)
    assert output.count("nothing wrong") == 2
    assert output.count("E301 learning_rat") == 1


def test_what_a_recipe_names_is_watched(sound_recipe, monkeypatch):
    data = sound_recipe.parent / "a.json"
    output = watched(monkeypatch, [sound_recipe], [lambda: data.write_text("[]"), data.unlink])
    assert "E321 dataset" in output and "E320 dataset" in output


@pytest.mark.parametrize(
    ("edit", "said"),
    [(lambda recipe: recipe.write_text("a: [1\n"), "not YAML"), (Path.unlink, "recipe not found")],
)
def test_a_recipe_that_is_none_for_a_moment_is_reported_once_and_watched_on(
    sound_recipe, monkeypatch, edit, said
):
    text = sound_recipe.read_text()
    edits = [lambda: edit(sound_recipe), lambda: None, lambda: sound_recipe.write_text(text)]
    output = watched(monkeypatch, [sound_recipe], edits)
    assert output.count(said) == 1 and output.count("nothing wrong") == 2


def test_of_two_recipes_the_edited_one_is_checked(sound_recipe, monkeypatch):
    other = sound_recipe.with_name("other.yaml")
    other.write_text(sound_recipe.read_text())
    output = watched(
        monkeypatch,
        [sound_recipe, other],
        [lambda: other.write_text(sound_recipe.read_text() + "\nseed: 1\n")],
    )
    assert (
        output.count(f"{sound_recipe}: ") == 1 and output.count(f"{other}: ") == 3
    )  # result, "changed", result


def test_the_files_of_an_adapter_and_a_model_belong_to_a_recipe(sound_recipe):
    folder = sound_recipe.parent / "adapter"
    folder.mkdir()
    (folder / "adapter_config.json").write_text("{}")
    (folder / "adapter_model.safetensors").write_bytes(b"")
    files = watched_files(read_recipe(sound_recipe, [f"adapter_name_or_path={folder}"]))
    assert folder / "adapter_config.json" in files
    assert folder / "adapter_model.safetensors" not in files
    before = states_of(files)
    (folder / "adapter_config.json").write_text('{"r": 8}')
    assert states_of(files) != before
    assert states_of([Path("no/such/file")]) == {Path("no/such/file"): None}
