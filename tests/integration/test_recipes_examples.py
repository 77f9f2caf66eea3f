"""Recipes that are tests by existing: those in good/ have no error, those in bad/ the one in their name.

What LLaMA-Factory says of their rows is asked of its own loader, converter and processor, in one process.
"""

import json
import os
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
    "found 1 turn before 1 answer, expected an odd number of turns and an answer with true or false",
    "E323-mixed-answer": "/mixed_answer.jsonl row 2: E323 mixed_answer: LLaMA-Factory cannot read it: column "
    '"output" holds 5, another kind of value than in the rows above',
    "E323-misspelt-column": "row 1: E323 misspelt_column: LLaMA-Factory stops at it: there is no 'ouput'",
    "E323-talks-null-text": "row 2: E323 talks_null_text: LLaMA-Factory stops at it: Expected a string, got",
    "E323-dpo-unranked": 'current training stage.; stages rm and dpo want `"ranking": true`, no other',
    "E350-fills-no-block": "refuses it: 17 tokens in all fill no block of 2048 (packing, cutoff_len)",
    "E323-streaming-no-worker": "streaming reads nothing without dataloader_num_workers: 1",
    "E351-one-of-two": "E351 lora_target: z_proj fits no layer of the model",
    "E351-block": "E351 lora_target: mlp fits no layer of the model",
    "on-hub": "dataset on_hub: no local file (hf_hub_url: someone/set)",
}


@pytest.mark.parametrize("name", SAID)
def test_rows_are_named_with_what_is_wrong_with_them(ours, name):
    assert SAID[name] in lines(ours, name), lines(ours, name)


def test_the_way_out_is_named_only_where_it_helps(ours):
    assert "give a model folder with --model DIR" in lines(ours, "model-on-hub")
    for path, found in ours.items():
        if "model" not in Path(path).stem and Path(path).stem != "E305-template":
            assert not [line for line in found["unchecked"] if "--model" in line], path


@pytest.mark.parametrize(
    "name", ["dpo-alpaca", "dpo-sharegpt", "simpo", "reward-alpaca", "kto-alpaca", "ppo"]
)
def test_preference_data_can_be_planned(ours, name):
    (planned,) = (found["planned"] for path, found in ours.items() if Path(path).stem == name)
    assert "in all (counted)" in planned, planned


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
