"""What inspection counts, against LLaMA-Factory's own data and PEFT's own adapters, on a tiny model."""

import sys
from unittest.mock import patch

import pytest

from testing.tiny import make_tiny
from tests.json_files import write_json
from tuneyard.core.llamafactory.loader import Launch, read_arguments
from tuneyard.recipes.llamafactory.inspection import inspect

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]
RANK = 4


@pytest.fixture(scope="module")
def plan_data(tmp_path_factory):
    """Return a folder with two datasets of rows of many lengths, one of text, and a tiny model."""
    folder = tmp_path_factory.mktemp("plan")
    make_tiny(folder / "model", tied=False)
    for name, count in (("a", 130), ("b", 41)):
        rows = [
            {"instruction": f"Is {n} even? " * (n % 7 + 1), "input": "", "output": "yes " * (n % 5 + 1)}
            for n in range(count)
        ]
        write_json(folder / f"{name}.json", rows)
    write_json(folder / "text.json", [{"text": f"It is {n}. " * (n % 9)} for n in range(1, 99)])
    info = {name: {"file_name": f"{name}.json"} for name in ("a", "b")}
    info["text"] = {"file_name": "text.json", "columns": {"prompt": "text"}}
    write_json(folder / "dataset_info.json", info)
    return folder


def settings(folder, **changed):
    return {
        "model_name_or_path": str(folder / "model"), "stage": "sft", "do_train": True,
        "finetuning_type": "lora", "lora_rank": RANK, "dataset_dir": str(folder), "dataset": "a,b",
        "template": "qwen", "cutoff_len": 128, "output_dir": str(folder / "out"), "overwrite_cache": True,
        "preprocessing_batch_size": 50, **changed,
    }  # fmt: skip


@pytest.mark.parametrize(
    "changed",
    [
        {},
        {"val_size": 0.1},
        {"val_size": 20, "max_samples": 60},
        {"packing": True},
        {"packing": True, "neat_packing": True, "cutoff_len": 64, "val_size": 17},
        {"packing": True, "preprocessing_num_workers": 3, "preprocessing_batch_size": 20},
        {"mix_strategy": "interleave_under", "interleave_probs": "0.5,0.5"},
        {"mix_strategy": "interleave_over", "interleave_probs": "0.3,0.7", "seed": 7},
        {"mix_strategy": "interleave_over", "interleave_probs": "0.3,0.7", "packing": True},
        {"stage": "pt", "dataset": "text", "cutoff_len": 32},
        {"stage": "pt", "dataset": "text", "packing": False},
    ],
    ids=str,
)  # fmt: skip
def test_the_rows_of_an_epoch_are_llamafactorys(plan_data, changed):
    from llamafactory.data import get_dataset

    asked = settings(plan_data, **changed)
    workers = {"preprocessing_num_workers": asked.get("preprocessing_num_workers")}
    reader = read_arguments(asked, **workers).with_tokenizer().with_template()
    data_args, arguments = reader.data_args, (reader.model_args, reader.data_args, reader.training_args)
    data = get_dataset(reader.template, *arguments, reader.stage, **reader.module)
    lengths = [len(ids) for ids in data["train_dataset"]["input_ids"]]
    found = inspect(asked, Launch()).train
    assert found.rows == len(lengths)
    if not data_args.packing:
        assert (found.seen, found.longest) == (sum(lengths), max(lengths))
    elif asked["stage"] == "pt":
        assert found.seen == sum(lengths)


@pytest.mark.parametrize(
    ("changed", "peft", "tokens"),
    [
        ({}, {"target_modules": "all-linear"}, 0),
        ({"lora_target": "q_proj,v_proj"}, {"target_modules": ["q_proj", "v_proj"]}, 0),
        (
            {"additional_target": "embed_tokens,lm_head"},
            {"target_modules": "all-linear", "modules_to_save": ["embed_tokens", "lm_head"]},
            0,
        ),
        (
            {"add_tokens": ",".join(f"<new{n}>" for n in range(1000)), "resize_vocab": True},
            {"target_modules": "all-linear", "modules_to_save": ["embed_tokens", "lm_head"]},
            1000,
        ),
    ],
)
def test_trained_parameters_are_pefts(plan_data, changed, peft, tokens):
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model = AutoModelForCausalLM.from_pretrained(plan_data / "model")
    if tokens:
        wanted = len(AutoTokenizer.from_pretrained(plan_data / "model")) + tokens
        model.resize_token_embeddings(-(-wanted // 64) * 64)
    whole = sum(parameter.numel() for parameter in model.parameters())
    rows = len(model.get_input_embeddings().weight)
    adapted = get_peft_model(model, LoraConfig(r=RANK, task_type="CAUSAL_LM", **peft))
    trained = sum(parameter.numel() for parameter in adapted.parameters() if parameter.requires_grad)
    found = inspect(settings(plan_data, **changed), Launch()).model.shapes
    assert (found.parameters, found.trainable, found.vocabulary) == (whole, trained, rows)


@pytest.mark.parametrize("kind", ["lora", "oft"])
def test_a_question_imports_no_bitsandbytes(plan_data, monkeypatch, kind):
    monkeypatch.setitem(sys.modules, f"peft.tuners.{kind}.bnb", None)
    assert inspect(settings(plan_data, finetuning_type=kind), Launch()).model.shapes.trainable


def test_a_question_loads_the_tokenizer_once_and_builds_no_options(plan_data, monkeypatch):
    from transformers import AutoTokenizer, HfArgumentParser

    monkeypatch.delattr(HfArgumentParser, "_parse_dataclass_field")
    with patch.object(AutoTokenizer, "from_pretrained", wraps=AutoTokenizer.from_pretrained) as load:
        assert inspect(settings(plan_data), Launch()).train.rows
    load.assert_called_once()


def test_an_edit_of_the_learning_rate_counts_no_row_again(plan_data, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    first = inspect(settings(plan_data), Launch())
    with monkeypatch.context() as patched:
        patched.setattr(
            "tuneyard.recipes.llamafactory.inspection.look", lambda *_: pytest.fail("it was counted again")
        )
        assert inspect(settings(plan_data, learning_rate=0.02, logging_steps=3), Launch()) == first
    assert inspect(settings(plan_data, cutoff_len=16), Launch()).train != first.train
    assert inspect(settings(plan_data, lora_rank=8), Launch()).model != first.model
    (tmp_path / "model").symlink_to(plan_data / "model")
    moved = settings(plan_data, model_name_or_path=str(tmp_path / "model"))
    assert inspect(moved, Launch()).data == first.data


def test_rows_without_a_tokenizer_are_counted_once_it_is_there(plan_data, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    with patch("llamafactory.model.load_tokenizer", side_effect=OSError):  # the hub's cache has none yet
        assert inspect(settings(plan_data), Launch()).train.rows == 0
    assert inspect(settings(plan_data), Launch()).train.rows == 171
