"""What core/llamafactory expects of each private name of LLaMA-Factory that it uses or replaces.

A new release of LLaMA-Factory that lacks one fails here by its name.
"""

import inspect
from importlib import import_module
from typing import Any

import pytest

pytest.importorskip("llamafactory")

FUNCTIONS = {
    "data.loader._load_single_dataset": "dataset_attr model_args data_args training_args",
    "data.loader._get_merged_dataset": "dataset_names model_args data_args training_args stage return_dict",
    "data.loader._get_dataset_processor": "data_args stage template tokenizer processor do_generate",
    "data.loader.align_dataset": "dataset dataset_attr data_args training_args",
    "data.loader.get_dataset_list": "dataset_names dataset_dir",
    "data.converter.get_dataset_converter": "name dataset_attr data_args",
    "data.data_utils.merge_dataset": "all_datasets data_args seed",
    "data.data_utils.split_dataset": "dataset eval_dataset data_args seed",
    "data.processor.processor_utils.greedy_knapsack": "numbers capacity",
    "data.processor.processor_utils.infer_seqlen": "source_len target_len cutoff_len",
    "data.template.get_template_and_fix_tokenizer": "tokenizer data_args",
    "hparams.parser._parse_train_args": "args",
    "hparams.parser._check_extra_dependencies": "model_args finetuning_args training_args",
    "model.patcher.patch_config": "config tokenizer model_args init_kwargs is_trainable",
    "model.adapter.init_adapter": "config model model_args finetuning_args is_trainable",
    "model.model_utils.misc.find_all_linear_modules": "model freeze_vision_tower",
}
"""The names of the parameters, the first of them in this order."""
LOOKED_UP = {
    "data.loader": "get_dataset_list align_dataset",
    "data.template": "TEMPLATES",
    "data.processor.supervised": "infer_seqlen",
    "data.processor.pairwise": "infer_seqlen",
    "data.processor.feedback": "infer_seqlen",
    "hparams.parser": (
        "_check_extra_dependencies _parse_train_args is_deepspeed_zero3_enabled is_torch_bf16_gpu_available "
        "HfArgumentParser _TRAIN_ARGS"
    ),
    "model.model_utils.quantization": "check_version is_deepspeed_zero3_enabled is_fsdp_enabled",
    "model.patcher": "is_deepspeed_zero3_enabled is_fsdp_enabled",
    "model.model_utils.visual": "COMPOSITE_MODELS",
    "extras.constants": "DEFAULT_TEMPLATE SUPPORTED_MODELS",
    "data.mm_plugin": "Qwen2VLPlugin Qwen3VLPlugin",
    "data.collator": "MultiModalDataCollatorForSeq2Seq",
    "train.sft.workflow": "CustomSeq2SeqTrainer",
    "train.tuner": "run_exp",
    "cli": "main",
}
"""Globals of a module that are read, or replaced where its functions look them up."""


def of_llamafactory(dotted: str) -> Any:
    module, _, name = dotted.rpartition(".")
    return getattr(import_module(f"llamafactory.{module}"), name)


@pytest.mark.parametrize("function", FUNCTIONS)
def test_a_function_has_the_parameters_that_it_is_called_with(function: str) -> None:
    parameters = list(inspect.signature(of_llamafactory(function)).parameters)
    expected = FUNCTIONS[function].split()
    assert parameters[: len(expected)] == expected


@pytest.mark.parametrize("module", LOOKED_UP)
def test_a_module_has_the_names_that_are_read_or_replaced(module: str) -> None:
    names = vars(import_module(f"llamafactory.{module}"))
    assert set(LOOKED_UP[module].split()) <= names.keys()


def test_the_first_four_results_of_get_train_args_are_the_arguments_of_recipe_data() -> None:
    hints = inspect.signature(of_llamafactory("hparams.parser.get_train_args")).return_annotation
    assert "_TRAIN_CLS" in str(hints) or "ModelArguments" in str(hints)
    names = [kind.__name__ for kind in of_llamafactory("hparams.parser._TRAIN_ARGS")]
    expected = ["ModelArguments", "DataArguments", "TrainingArguments", "FinetuningArguments"]
    assert names[:4] == expected


def test_a_reasoning_template_names_the_words_around_a_thought() -> None:
    templates = of_llamafactory("data.template.TEMPLATES")
    reasoning = of_llamafactory("data.template.ReasoningTemplate")
    assert isinstance(templates["qwen3"], reasoning)
    assert [word.strip() for word in templates["qwen3"].thought_words] == ["<think>", "</think>"]
