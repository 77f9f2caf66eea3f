"""Recipes that are tests by existing: those in good/ have no error, those in bad/ the one in their name.

What LLaMA-Factory says of their rows is asked of its own loader, converter and processor, in one process.
"""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import REAL, ROOT

EXAMPLES = sorted((ROOT / "tests/examples/recipes").glob("*/*.yaml"))
OURS = [path for path in EXAMPLES if path.parent.name in ("good", "bad")]
THEIRS = sorted((REAL / "lf/examples").glob("train_*/*.yaml")) + sorted(
    (REAL / "lf/examples").glob("extras/*/*.yaml")
)
REFUSED = {  # by LLaMA-Factory 0.9.5 too, with the data and the tiny model that are here
    "llama2_full_asft": "E320", "qwen2_full_asft": "E320",  # datasets med and math are in no registry
    "llama3_fp8_fsdp_sft": "E301",  # a key that transformers 5 has no more
    "llama3_lora_predict": "E346",  # the adapter that another example trains
    "llama3_freeze_sft": "E351",  # blocks of 8 layers, of which the tiny model has 2
    "mossvl_full_sft": "E305", "mossvl_lora_sft": "E305",  # a template of the next version
}  # fmt: skip
ENVIRONMENT = {
    "HF_HUB_OFFLINE": "1",
    "OMP_NUM_THREADS": "1",
    "LLAMAFACTORY_VERBOSITY": "ERROR",
    "TQDM_DISABLE": "1",
}


def checked(folder: Path, model: Path, paths: list[Path]) -> dict[str, dict]:
    """Check recipes in one process and return what was found in each, by its path."""
    cache = {"XDG_CACHE_HOME": str(folder / "cache"), "HF_DATASETS_CACHE": str(folder / "cache/datasets")}
    if (REAL / "lf/data").is_dir():
        (folder / "data").symlink_to(REAL / "lf/data")
    done = subprocess.run(
        [sys.executable, "-m", "tests.integration.recipes_examples", folder, model, *paths],
        cwd=ROOT, env={**os.environ, **ENVIRONMENT, **cache}, capture_output=True, text=True, timeout=600,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads((folder / "outcome.json").read_text())


@pytest.fixture(scope="module")
def ours(tmp_path_factory, tiny_model) -> dict[str, dict]:
    return checked(tmp_path_factory.mktemp("ours"), tiny_model, OURS)


@pytest.mark.parametrize("path", OURS, ids=lambda path: path.stem)
def test_an_example_of_ours(ours, path):
    found = ours[str(path)]
    assert not found["crashed"], found["crashed"]
    assert found["codes"] == ([path.name[:4]] if path.parent.name == "bad" else []), found["lines"]


def lines(ours: dict[str, dict], name: str) -> str:
    (found,) = (found for path, found in ours.items() if Path(path).stem == name)
    return "\n".join([*found["lines"], *found["unchecked"]])


SAID = {
    "E323-kto-one-null-tag": "/one_null_tag.jsonl row 2: E323 one_null_tag: LLaMA-Factory drops it: "
    'its mark in column "label" is null, expected true or false',
    "E323-kto-text-tags": 'its mark in column "label" is "',
    "E434-kto-untagged": "E434 stage: found kto, and alpaca holds plain answers, neither pairs nor marked",
    "E434-sft-judged": "E434 stage: found sft, and judged holds answers marked as wanted or not",
    "E434-sft-pairs": "E434 stage: found sft, and pairs holds preference pairs",
    "E323-mixed-answer": "/mixed_answer.jsonl row 2: E323 mixed_answer: LLaMA-Factory cannot read it: column "
    '"output" holds 5, another kind of value than in the rows above',
    "E323-misspelt-column": "row 1: E323 misspelt_column: LLaMA-Factory stops at it: there is no 'ouput'",
    "E323-talks-null-text": "row 2: E323 talks_null_text: LLaMA-Factory stops at it: Expected a string, got",
    "E434-dpo-unranked": 'or write "ranking": true into the entry of a dataset of pairs',
    "E323-talks-odd": "row 2: E323 talks_odd: LLaMA-Factory drops it: conversations: found 3 turns,",
    "E323-talks-swapped": 'drops it: conversations: turn 1 is "gpt", expected "human" or "observation"',
    "E350-zero-3-generates": "`predict_with_generate` is incompatible with DeepSpeed ZeRO-3",
    "E350-zero-3-pure-bf16": "`pure_bf16` is incompatible with DeepSpeed ZeRO-3",
    "E350-zero-3-pissa": "E350 pissa_init: LLaMA-Factory refuses it",
    "E350-zero-3-unsloth": "Unsloth is incompatible with DeepSpeed ZeRO-3",
    "E350-deepspeed-galore": "GaLore and APOLLO are incompatible with DeepSpeed",
    "E350-deepspeed-apollo": "GaLore and APOLLO are incompatible with DeepSpeed",
    "E350-two-gpus-badam": "E350 use_badam: LLaMA-Factory refuses it",
    "E350-fills-no-block": "refuses it: 17 tokens in all fill no block of 2048 (packing, cutoff_len)",
    "E323-streaming-no-worker": "streaming reads nothing without dataloader_num_workers: 1",
    "E351-one-of-two": "E351 lora_target: z_proj fits no layer of the model",
    "E351-block": "E351 lora_target: mlp fits no layer of the model",
    "E351-freeze-module": "E351 freeze_trainable_modules: LLaMA-Factory cannot adapt it: Module no_such",
    "E351-freeze-extra": "E351 freeze_extra_modules: LLaMA-Factory cannot adapt it: Module no_such",
    "E351-llama-pro": "E351 freeze_trainable_layers: LLaMA-Factory cannot adapt it: `num_layers` 2",
    "E325-template": "E325 template: template llama3 writes <|start_header_id|>, <|end_header_id|>,",
    "E325-begins-with-another-token": "template chatglm3 writes [gMASK], sop,",
    "template-plain": "W352 template: template alpaca is plain text",
    "template-default-system": "N352 template: the default system text is not the model's",
    "cuts-some": "W353 cutoff_len: cuts 2 of 4 rows of alpaca",
    "E353-cuts-all": "E353 cutoff_len: cuts all 4 rows of alpaca; the longest has 71 tokens",
    "E417-empty": "E417 empty_answers: 2 of 2 rows (rows 1, 2)",
    "E417-chosen-empty": "E417 pairs_chosen_empty: 2 of 2 rows (rows 1, 2)",
    "empty-answer": "W417 one_empty_answer: 1 of 2 rows (row 2)",
    "E422-same": "E422 pairs_same: 2 of 2 rows (rows 1, 2)",
    "equal-pair": "W422 pairs_one_same: 1 of 2 rows (row 1)",
    "E327-query": "E327 dataset: query_left_out: 'input' is filled in 2 of 3 records (first in row 1)",
    "E327-context": "E327 dataset: context_left_out: 'context' is filled in 2 of 2 records (first in row 1)",
    "text-left-out": "W327 dataset: text_left_out: 'facts' is filled in 1 of 2 records (first in row 2)",
    "E328-eval-has-its-file": "E328 eval_dataset: same_alpaca is the rows of alpaca,",
    "eval-is-train": "W328 eval_dataset: alpaca is the dataset that is trained on",
    "E332-freeze-first": "found -3, the model has 2 layers",
    "E333-positions": "E333 cutoff_len: 4,096 is above the 2,048 positions of the model",
    "experts": "W358 lora_target: `all` takes Linear layers, which the experts (38% of",
    "learning-rate-high": "W357 learning_rate: 0.1 is far above",
    "learning-rate-low": "W357 learning_rate: 1e-08 is far below",
    "packed": "N359 packing: examples in a block see the ones before them",
    "on-hub": "dataset on_hub: no local file (hf_hub_url: someone/set)",
}


@pytest.mark.parametrize("name", SAID)
def test_rows_are_named_with_what_is_wrong_with_them(ours, name):
    assert SAID[name] in lines(ours, name), lines(ours, name)


# Findings that a warning or a note would make on a recipe that has nothing of the kind.
SILENT = {
    "template-of-base": "352",
    "template-llama3": "352",
    "template-left-out": "352",
    "experts-full": "W358",
    "neat-packed": "359",
    "longer-than-the-model": "333",
    "freeze-first": "332",
    "pt-unpacked": "352",
    "data-empty-query": "327",
    "data-no-query": "327",
}


@pytest.mark.parametrize("name", SILENT)
def test_recipes_without_the_defect_are_told_nothing_of_it(ours, name):
    assert SILENT[name] not in " ".join(line.split(": ")[1] for line in lines(ours, name).splitlines())


def test_a_refusal_of_llamafactory_names_line_and_setting(ours):
    for path, found in ours.items():
        if Path(path).stem.startswith(("E350", "E351")):
            refusals = [line for line in found["lines"] if re.search(r"\.yaml:\d+: E35[01] \w+: ", line)]
            assert refusals, found["lines"]


def test_the_way_out_is_named_only_where_it_helps(ours):
    assert "give a model folder with --model DIR" in lines(ours, "model-on-hub")
    for path, found in ours.items():
        if "model" not in Path(path).stem and Path(path).stem != "E305-template":
            assert not [line for line in found["unchecked"] if "--model" in line], path


@pytest.mark.parametrize("name", ["dpo-alpaca", "dpo-sharegpt", "simpo", "reward-alpaca", "kto-alpaca"])
def test_preference_data_can_be_planned(ours, name):
    (planned,) = (found["planned"] for path, found in ours.items() if Path(path).stem == name)
    assert "in all, counted" in planned, planned


@pytest.fixture(scope="module")
def theirs(tmp_path_factory, tiny_model) -> dict[str, dict]:
    return checked(tmp_path_factory.mktemp("theirs"), tiny_model, THEIRS)


@pytest.mark.slow
@pytest.mark.parametrize("path", THEIRS, ids=lambda path: f"{path.parent.name}-{path.stem}")
def test_an_example_of_llamafactory(theirs, path):
    found = theirs[str(path)]
    if path.stem == "tokens_cfg":
        pytest.skip("no recipe but a list of tokens")
    assert not found["crashed"], found["crashed"]
    assert found["codes"] == ([REFUSED[path.stem]] if path.stem in REFUSED else []), found["lines"]
