"""Adapters and second models that a recipe starts from."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from tests.json_files import write_json
from tuneyard.core.weights.tensors import open_weights
from tuneyard.recipes.recipe import Recipe
from tuneyard.recipes.rules.starting_weights import loaded_problems

LAYER = "layers.{}.q_proj"
WIDTH = 16


def model(folder: Path, value: float, *, sharded: bool = False, **config: object) -> Path:
    """Write a model folder of two layers, each a square weight of `WIDTH` that is filled with `value`."""
    folder.mkdir(parents=True)
    write_json(folder / "config.json", config)
    weights = {f"{LAYER.format(n)}.weight": np.full((WIDTH, WIDTH), value, np.float32) for n in range(2)}
    if not sharded:
        save_file(weights, folder / "model.safetensors")
        return folder
    places = {}
    for number, (name, tensor) in enumerate(weights.items(), 1):
        places[name] = f"model-0000{number}-of-00002.safetensors"
        save_file({name: tensor}, folder / places[name])
    write_json(folder / "model.safetensors.index.json", {"weight_map": places})
    return folder


def adapter(
    folder: Path, base: object, *, width: int = WIDTH, paths: Sequence[str] = ("layers.0.q_proj",)
) -> Path:
    """Write an adapter that names `base` and has factors for square weights of `width`."""
    folder.mkdir(parents=True)
    write_json(folder / "adapter_config.json", {"base_model_name_or_path": str(base)})
    factors = {}
    for path in paths:
        factors[f"base_model.model.{path}.lora_A.weight"] = np.ones((2, width), np.float32)
        factors[f"base_model.model.{path}.lora_B.weight"] = np.ones((width, 2), np.float32)
    save_file(factors, folder / "adapter_model.safetensors")
    return folder


def found(**settings: object) -> list[tuple[str, str, str]]:
    recipe = Recipe(Path("r.yaml"), {key: str(value) for key, value in settings.items()}, {})
    return [(problem.code, problem.field, problem.message) for problem in loaded_problems(recipe)]


@pytest.fixture
def base(tmp_path):
    return model(tmp_path / "tiny", 1)


def test_an_adapter_of_another_base_is_an_error(tmp_path):
    ours, other = model(tmp_path / "ours", 1), model(tmp_path / "other", 2)
    ((code, key, message),) = found(
        model_name_or_path=ours, adapter_name_or_path=adapter(tmp_path / "rte", other)
    )
    assert (code, key) == ("E345", "adapter_name_or_path")
    assert f"trained on {other}, whose weights are not those of {ours}" in message


@pytest.mark.parametrize(
    ("base", "model_name", "codes"),
    [
        ("org/chat", "org/chat", ["N345"]),  # its shapes are unknown
        ("org/chat", "org/base", ["E345"]),
        ("unsloth/chat-bnb-4bit", "org/chat", ["N345"]),  # by its name alone
    ],
)
def test_models_of_the_hub_are_compared_by_name(tmp_path, base, model_name, codes):
    problems = found(model_name_or_path=model_name, adapter_name_or_path=adapter(tmp_path / "rte", base))
    assert [code for code, _, _ in problems] == codes


def test_the_adapters_of_a_reference_belong_to_the_reference(tmp_path):
    ours, other = model(tmp_path / "ours", 1), model(tmp_path / "other", 2)
    reference = {"ref_model": other, "ref_model_adapters": adapter(tmp_path / "ref", other)}
    assert found(model_name_or_path=ours, **reference) == []


@pytest.mark.parametrize("sharded", [False, True])
@pytest.mark.parametrize(
    ("width", "layers", "fault"),
    [
        (WIDTH, 2, ""),
        (32, 1, "layers.0.q_proj: made for a weight of shape [32, 32], "),
        (32, 2, " (2 tensors in all)"),
        (WIDTH, 3, "layers.2.q_proj: "),  # of a deeper base
    ],
)
def test_an_adapter_with_shapes_of_another_base_is_an_error(tmp_path, sharded, width, layers, fault):
    base = model(tmp_path / "tiny", 1, sharded=sharded)
    paths = [LAYER.format(number) for number in range(layers)]
    start = adapter(tmp_path / "rte", base, width=width, paths=paths)
    assert_fault(found(model_name_or_path=base, adapter_name_or_path=start), fault, base)


def assert_fault(problems: list, fault: str, base: Path) -> None:
    """One error names the fault and the base, or there is neither fault nor error."""
    assert [code for code, _, _ in problems] == (["E345"] if fault else [])
    if fault:
        assert fault in problems[0][2] and str(base) in problems[0][2]


def save_in_full(adapter_folder: Path, **tensors: tuple[int, int]) -> None:
    """Give an adapter tensors of `modules_to_save` in these shapes."""
    weights = adapter_folder / "adapter_model.safetensors"
    contents = load_file(weights)
    for name, shape in tensors.items():
        contents[f"base_model.model.{name}.weight"] = np.ones(shape, np.float32)
    save_file(contents, weights)


@pytest.mark.parametrize(
    ("rows", "width", "settings", "fault"),
    [
        (8, WIDTH, {}, ""),
        (8, 32, {}, "lm_head.weight: saved with shape [8, 32], "),
        (12, WIDTH, {}, "lm_head.weight: saved with 12 rows, "),  # LLaMA-Factory loads it into 8 rows
        (12, WIDTH, {"resize_vocab": True}, ""),
        (4, WIDTH, {"resize_vocab": True}, "lm_head.weight: saved with shape [4, 16], "),
    ],
)
def test_tensors_saved_in_full_have_the_shapes_of_the_base(base, tmp_path, rows, width, settings, fault):
    weights = load_file(base / "model.safetensors")
    save_file(weights | {"lm_head.weight": np.ones((8, WIDTH), np.float32)}, base / "model.safetensors")
    start = adapter(tmp_path / "rte", base)
    save_in_full(start, lm_head=(rows, width))
    assert_fault(found(model_name_or_path=base, adapter_name_or_path=start, **settings), fault, base)


def test_weights_of_an_adapter_that_cannot_be_loaded_are_an_error_with_their_file(base, tmp_path):
    start = adapter(tmp_path / "rte", base)
    weights = start / "adapter_model.safetensors"

    def fault() -> tuple[str, str]:
        ((code, _, message),) = found(model_name_or_path=base, adapter_name_or_path=start)
        return code, message

    in_base = {"layers.0.q_proj.weight": np.ones((WIDTH, WIDTH), np.float32)}  # without PEFT's prefix
    save_file(load_file(weights) | in_base, weights)
    code, message = fault()
    assert code == "E345" and "layers.0.q_proj.weight: expected names that begin with" in message
    weights.write_bytes(b"12345678901")
    code, message = fault()
    assert code == "E345" and str(weights) in message
    weights.unlink()
    code, message = fault()
    assert code == "E346" and "adapter_model.safetensors is missing" in message


def test_a_base_that_was_downloaded_in_part_is_one_error(tmp_path):
    base = model(tmp_path / "tiny", 1, sharded=True)
    start = adapter(tmp_path / "rte", base)
    (base / "model-00002-of-00002.safetensors").write_text("version https://git-lfs.github.com/spec/v1\n")
    assert [code for code, _, _ in found(model_name_or_path=base, adapter_name_or_path=start)] == ["E306"]


@pytest.mark.parametrize("kind", ["quantised", "pickled", "on the hub", "without weights"])
def test_shapes_that_cannot_be_compared_are_a_note(tmp_path, kind):
    config = {"quantization_config": {"load_in_4bit": True}} if kind == "quantised" else {}
    base = "org/chat" if kind == "on the hub" else model(tmp_path / "tiny", 1, **config)
    start = adapter(tmp_path / "rte", base, width=32)
    if kind == "without weights":
        (base / "model.safetensors").unlink()
    if kind == "pickled":
        (start / "adapter_model.safetensors").rename(start / "adapter_model.bin")
    ((code, key, message),) = found(model_name_or_path=base, adapter_name_or_path=start)
    assert (code, key) == ("N345", "adapter_name_or_path")
    assert "shapes are not checked" in message


def test_a_module_that_the_checkpoint_names_in_another_way_is_not_compared(base, tmp_path):
    start = adapter(tmp_path / "rte", base, width=32, paths=["layers.0.mlp.experts"])
    assert found(model_name_or_path=base, adapter_name_or_path=start) == []


def test_an_adapter_in_several_files_is_compared_as_well(base, tmp_path):
    start = adapter(tmp_path / "rte", base, width=32)
    weights = start / "adapter_model.safetensors"
    places = dict.fromkeys(open_weights(weights).tensors, "part-1.safetensors")
    weights.rename(start / "part-1.safetensors")
    write_json(start / "adapter_model.safetensors.index.json", {"weight_map": places})
    assert [code for code, _, _ in found(model_name_or_path=base, adapter_name_or_path=start)] == ["E345"]


def test_a_checkpoint_of_another_base_is_an_error(tmp_path):
    ours, other = model(tmp_path / "ours", 1), model(tmp_path / "other", 2)
    settings = {"do_train": True, "resume_from_checkpoint": str(adapter(tmp_path / "checkpoint-2", other))}
    for base, codes in ((ours, ["E345"]), (other, [])):
        recipe = Recipe(Path("r.yaml"), {**settings, "model_name_or_path": str(base)}, {})
        assert [problem.code for problem in loaded_problems(recipe)] == codes


def test_an_adapter_on_top_of_others_needs_them_before_it(tmp_path, base):
    first, second = adapter(tmp_path / "first", base), adapter(tmp_path / "second", base)
    settings = {"adapter_name_or_path": str(first), "create_new_adapter": True}
    write_json(Path(second) / "training_args.yaml", settings)
    ((code, key, message),) = found(model_name_or_path=base, adapter_name_or_path=second)
    assert (code, key) == ("W345", "adapter_name_or_path")
    assert f"{second} was trained on top of {first}" in message
    assert found(model_name_or_path=base, adapter_name_or_path=f"{first},{second}") == []
    codes = [code for code, _, _ in found(model_name_or_path=base, adapter_name_or_path=f"{second},{first}")]
    assert codes == ["W345"]
    write_json(Path(second) / "training_args.yaml", {**settings, "create_new_adapter": False})
    assert found(model_name_or_path=base, adapter_name_or_path=second) == []
    (Path(second) / "training_args.yaml").write_text("[")
    assert found(model_name_or_path=base, adapter_name_or_path=second) == []


def test_an_adapter_saved_under_its_name_is_named_in_the_fix(tmp_path, base):
    adapter(tmp_path / "run" / "sft", base)
    recipe = Recipe(
        Path("r.yaml"), {"model_name_or_path": str(base), "adapter_name_or_path": f"{tmp_path}/run"}, {}
    )
    (problem,) = loaded_problems(recipe)
    assert problem.code == "E346"
    assert "adapter_folder: sft" in problem.line() and f"{tmp_path}/run/sft" in problem.line()
    assert found(**recipe.settings, adapter_folder="sft") == []
