"""Reading a recipe as LLaMA-Factory does, and every way in which a file can be no recipe."""

from pathlib import Path

import pytest

from tests.messages import raises
from tuneyard.core.errors import ContentError, RequestError
from tuneyard.recipes.recipe import read_recipe


def write(folder: Path, text: str, name: str = "r.yaml") -> Path:
    path = folder / name
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return path


def test_values_and_places(tmp_path):
    path = write(tmp_path, "# header\nlearning_rate: 1e-4\ndataset: a, b\n\nbf16: yes\noutput_dir: out\n")
    recipe = read_recipe(path, ["lora_rank=4", "bf16=false"])
    assert recipe.settings["learning_rate"] == 1e-4  # PyYAML alone would read a text
    assert recipe.settings["bf16"] is False
    assert recipe.settings["lora_rank"] == 4
    assert recipe.names("dataset") == ["a", "b"]
    assert recipe.names("eval_dataset") == []
    assert recipe.place("dataset") == f"{path}:3"
    assert recipe.place("bf16") == f"{path} (override)"
    assert recipe.place("missing") == str(path)
    assert (recipe.path.stem, recipe.output_dir) == ("r", Path("out"))


@pytest.mark.parametrize(
    ("text", "facts"),
    [
        ("", ""),
        ("just words\n", "just words"),
        ("a: 1\n b: 2\n", "r.yaml:2; YAML"),
    ],
)
def test_what_is_no_recipe(tmp_path, text, facts):
    with raises(ContentError, facts):
        read_recipe(write(tmp_path, text))


def test_the_home_folder_is_meant_as_transformers_means_it(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", "/home/me")
    assert read_recipe(write(tmp_path, "output_dir: ~/runs\n")).output_dir == Path("/home/me/runs")


def test_requests_that_cannot_be_served(tmp_path):
    with raises(RequestError):
        read_recipe(tmp_path / "none.yaml")
    with raises(RequestError, ".yml"):
        read_recipe(write(tmp_path, "{}", "r.json"))
    with raises(RequestError, "key=value"):
        read_recipe(write(tmp_path, "a: 1\n"), ["lora_rank"])
    for override in ("a=[1", f"a={'9' * 5000}", "a=${"):
        with raises(RequestError, "YAML"):
            read_recipe(write(tmp_path, "a: 1\n"), [override])
    with raises(RequestError, str(tmp_path / "r.yaml")):
        read_recipe(tmp_path)


def test_missing_output_dir_is_a_problem_of_the_recipe(tmp_path):
    with raises(ContentError, "output_dir"):
        _ = read_recipe(write(tmp_path, "a: 1\n")).output_dir


def test_a_bare_name_is_a_recipe_of_ours(working_folder):
    (working_folder / "recipes").mkdir()
    (working_folder / "recipes/demo-rte.yaml").write_text("lora_rank: 4\n")
    assert read_recipe(Path("demo-rte")).path == Path("recipes/demo-rte.yaml")
    assert read_recipe(Path("qwen0.5b-qa")).path.name == "qwen0.5b-qa.yaml"
    with raises(RequestError, "demo-rte"):
        read_recipe(Path("demo-rta"))
