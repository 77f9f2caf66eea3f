"""Reading a recipe as LLaMA-Factory does, and every way in which a file can be no recipe."""

from pathlib import Path

import pytest

from tests.messages import raises
from tuneyard.core.errors import ContentError, RequestError
from tuneyard.core.language.message import translated
from tuneyard.core.language.reader import in_language
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


OTHERS = {
    "board": ("top.booster: auto\ntop.model_name: Qwen\ntrain.batch_size: 2\n", "LLaMA Board"),
    "board of another tab": ("train.dataset: [a]\ntrain.cutoff_len: 512\n", "LLaMA Board"),
    "export": ("model_name_or_path: m\ntemplate: qwen\nexport_dir: out\nexport_size: 5\n", "cli export"),
    "export of an adapter": ("model_name_or_path: m\nadapter_name_or_path: a\nexport_dir: o\n", "cli export"),
    "chat": ("model_name_or_path: m\ntemplate: qwen\ninfer_backend: vllm\n", "llamafactory-cli chat"),
    "eval": ("model_name_or_path: m\ntask: mmlu_test\nn_shot: 5\nsave_dir: s\n", "llamafactory-cli eval"),
    "v1": ("model: m\ntrain_dataset: d\n", "LLaMA-Factory v1"),
    "v1 with a config": ("model: m\npeft_config: {name: lora, r: 16}\n", "LLaMA-Factory v1"),
    "axolotl": ("base_model: m\ndatasets: [{path: d, type: alpaca}]\nsequence_len: 512\n", "axolotl"),
    "mergekit": ("merge_method: ties\nmodels: [{model: a}]\n", "mergekit"),
}


@pytest.mark.parametrize(("text", "name"), OTHERS.values(), ids=OTHERS)
def test_a_file_of_another_command_is_named_with_its_command(tmp_path, text, name):
    path = write(tmp_path, text)
    with pytest.raises(ContentError) as error:
        read_recipe(path)
    message = str(error.value)
    assert message.startswith(f"{path}: ") and name in message and "\n" not in message
    assert "llamafactory-cli" in message or "tuneyard" in message
    with in_language("zh"):
        assert "不是训练配方" in translated(error.value.message)


def test_a_recipe_with_such_keys_is_a_recipe(tmp_path):
    text = "model_name_or_path: m\ndataset: d\nstage: sft\nexport_dir: o\ninfer_backend: vllm\n"
    assert read_recipe(write(tmp_path, text)).settings["export_dir"] == "o"
