"""Recipes that are tests by existing: those in good/ are right, those in bad/ have the problem in their name.

A recipe in bad/ begins with the failure or the bad training that it stands for. The same words in several of
them are one cause. `# warns: CODE` and `# also: CODE` name what else is found. LLaMA-Factory's own loader,
converter and processor judge the rows, in one process for all of them, in the slow tests. The fast tests run
the quick check on all, which does not ask LLaMA-Factory.
"""

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from testing.real_data import DATA, find
from tests.conftest import ROOT
from tests.integration.recipes_examples import PLANNED, make_models, quick_findings
from tests.json_files import read_json
from tests.messages import golden_text
from tests.real_data import real_path

pytestmark = pytest.mark.timeout(2400)  # the first slow test waits for the answers about all examples
EXAMPLES = sorted((ROOT / "tests/examples/recipes").glob("*/*.yaml"))
GOOD = [path for path in EXAMPLES if path.parent.name == "good"]
BAD = [path for path in EXAMPLES if path.parent.name == "bad"]
STANDS_FOR = re.compile(rb"# stands for: (.{20,})\n")
LEAST_CAUSES = LEAST_GOOD = 100
LLAMAFACTORY = find(DATA, "lf")
"""LLaMA-Factory's example recipes and their data, None without real data."""
THEIRS = [
    path
    for path in sorted(LLAMAFACTORY.glob("examples/*/**/*.yaml") if LLAMAFACTORY else ())
    if path.is_relative_to(LLAMAFACTORY / "examples/extras") or path.parent.name.startswith("train_")
    if path.stem != "tokens_cfg"  # a list of tokens
]
EXPECTED = ROOT / "tests/golden/recipes/llamafactory_examples.json"
"""Findings on each of LLaMA-Factory's examples: without its model, and on a tiny model of its kind."""
QUICK = EXPECTED.with_name("quick_check.json")
SAID = {
    "E323-kto-one-null-tag": "/one_null_tag.jsonl row 2: E323 one_null_tag: LLaMA-Factory drops it: "
    'its mark in column "label" is null, expected true or false',
    "E323-kto-text-tags": 'its mark in column "label" is "',
    "E434-kto-untagged": "E434 stage: found kto, and alpaca holds plain answers, neither pairs nor marked",
    "E434-sft-judged": "E434 stage: found sft, and judged holds answers tagged as desirable or not",
    "E434-sft-pairs": "E434 stage: found sft, and pairs holds preference pairs",
    "E323-mixed-answer": "/mixed_answer.jsonl row 2: E323 mixed_answer: LLaMA-Factory cannot read it: column "
    '"output" holds 5, another kind of value than in the rows above',
    "E323-misspelt-column": "row 1: E323 misspelt_column: LLaMA-Factory stops at it: there is no 'ouput'",
    "E323-image-tokens-cut": "training stops at it: cutoff_len 128 leaves",
    "E323-talks-null-text": "row 2: E323 talks_null_text: LLaMA-Factory stops at it: Expected a string, got",
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
    "E350-held-out-fills-no-block": "E350 val_size: LLaMA-Factory refuses it: val_size 0.5 holds out 1 row: "
    "7 tokens in all fill no block of 8",
    "E350-evaluated-fills-no-block": "E350 eval_dataset: LLaMA-Factory refuses it: 12 tokens in all fill no "
    "block of 16",
    "E323-streaming-no-worker": "streaming reads nothing without dataloader_num_workers: 1",
    "E351-one-of-two": "E351 lora_target: z_proj fits no layer of the model",
    "E351-freeze-module": "E351 freeze_trainable_modules: LLaMA-Factory cannot adapt it: Module no_such",
    "E351-freeze-extra": "E351 freeze_extra_modules: LLaMA-Factory cannot adapt it: Module no_such",
    "E351-rope-scaling": "E351 rope_scaling: LLaMA-Factory cannot adapt it: Field 'max_position",
    "E351-llama-pro": "E351 freeze_trainable_layers: LLaMA-Factory cannot adapt it: `num_layers` 2",
    "E325-template": "E325 template: template llama3 writes <|start_header_id|>, <|end_header_id|>,",
    "E417-empty": "E417 empty_answers: 2 of 2 rows (rows 1, 2)",
    "E327-query": "E327 dataset: query_left_out: 'input' is filled in 2 of 3 records (first in row 1)",
    "W357-learning-rate-low": "W357 learning_rate: 1e-08 is far below",
    "on-hub": "dataset on_hub: no local file (hf_hub_url: someone/set)",
}

# Findings that a warning or a note would make on a recipe that has nothing of the kind.
SILENT = {
    "template-of-base": "352",
    "template-llama3": "352",
    "template-left-out": "352",
    "experts-full": "W358",
    "neat-packed": "359",
    "pt-unpacked": "352",
    "data-empty-query": "327",
    "data-no-query": "327",
}


FIRST_OF_CODE = {path.stem.partition("-")[0]: path for path in reversed(BAD)}
"""One wrong recipe of each code."""
ENVIRONMENT = {
    "PYTHONPATH": str(ROOT),
    "HF_HUB_OFFLINE": "1",
    "OMP_NUM_THREADS": "1",
    "LLAMAFACTORY_VERBOSITY": "ERROR",
    "TQDM_DISABLE": "1",
}


def prepared(folder: Path, model: Path) -> Path:
    """Write what recipes name into a folder and return it: it has the examples at their place in a clone."""
    clone = folder / "clone"
    shutil.copytree(ROOT / "tests/examples/recipes", clone / "tests/examples/recipes")
    (clone / "README.md").touch()  # the output folder of an example
    if LLAMAFACTORY is not None:
        (folder / "data").symlink_to(LLAMAFACTORY / "data")
        (folder / "examples").symlink_to(LLAMAFACTORY / "examples")
    make_models(folder, str(model))
    return folder


def checked(folder: Path, model: Path, paths: list[Path]) -> dict[str, dict]:
    """Check recipes in one process, in a clone without a demo's adapters; return what is found, by path."""
    cache = {"XDG_CACHE_HOME": str(folder / "cache"), "HF_DATASETS_CACHE": str(folder / "cache/datasets")}
    program = "from tests.integration.recipes_examples import run; run()"
    done = subprocess.run(
        [sys.executable, "-c", program, folder, model, *paths],
        cwd=folder / "clone", env={**os.environ, **ENVIRONMENT, **cache},
        capture_output=True, text=True, timeout=2400,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    return read_json(folder / "outcome.json")


@pytest.fixture(scope="module")
def prepared_folder(tmp_path_factory, tiny_model) -> Path:
    return prepared(tmp_path_factory.mktemp("recipes"), tiny_model)


@pytest.fixture(scope="module")
def outcomes(prepared_folder, tiny_model) -> dict[str, dict]:
    """What is found in all examples, ours and LLaMA-Factory's."""
    return checked(prepared_folder, tiny_model, [*GOOD, *BAD, *THEIRS])


def expected_code(path: Path) -> str:
    """Code at the beginning of a wrong recipe's name: E350, W338, or E for one that cannot be read."""
    return path.stem.partition("-")[0]


def stated(path: Path, word: str) -> list[str]:
    """Codes after `# also:` or `# warns:` in an example."""
    text = path.read_bytes().decode(errors="replace")
    return re.findall(r"[EW]\d{3}", text.partition(f"# {word}: ")[2].partition("\n")[0])


def is_as_stated(path: Path, outcome: dict) -> bool:
    """True if a check found what an example's folder, name and comments say, and no other error."""
    errors = set(outcome["codes"])
    if outcome["crashed"]:
        return False
    if path.parent.name == "good":
        warnings = {code for code in outcome["findings"] if code[0] == "W"}
        return not errors and warnings == set(stated(path, "warns"))
    code = expected_code(path)
    if code[0] == "E":
        return errors == {code, *stated(path, "also")}
    return not errors and code in outcome["findings"]


def test_a_wrong_recipe_begins_with_the_failure_that_it_stands_for():
    causes = set()
    for path in BAD:
        cause = STANDS_FOR.match(path.read_bytes())
        assert cause, path
        causes.add(cause[1])
    assert len(causes) >= LEAST_CAUSES


def test_all_examples_by_the_quick_check(prepared_folder, tiny_model, request, monkeypatch):
    """Place, code, key and figures of what it finds in each; LLaMA-Factory finds the rest."""
    monkeypatch.chdir(prepared_folder / "clone")
    findings = quick_findings(prepared_folder, str(tiny_model))
    if request.config.getoption("regenerate"):
        QUICK.write_text(json.dumps(findings, indent=1) + "\n")
    expected = read_json(QUICK)
    changed = {name: found for name, found in findings.items() if found != expected.get(name)}
    assert not changed and findings.keys() == expected.keys()


def test_good_recipes_differ():
    assert len({path.read_bytes() for path in GOOD}) == len(GOOD) >= LEAST_GOOD


@pytest.mark.slow
@pytest.mark.parametrize("path", [*GOOD, *BAD], ids=lambda path: path.stem)
def test_an_example(outcomes, path):
    outcome = outcomes[str(path)]
    assert is_as_stated(path, outcome), outcome


@pytest.mark.slow
@pytest.mark.parametrize("code", FIRST_OF_CODE)
def test_a_message_of_each_code(outcomes, code):
    """The others vary its names and figures."""
    outcome = outcomes[str(FIRST_OF_CODE[code])]
    golden_text("\n".join(line for line in outcome["lines"] if code == "E" or f" {code} " in line))


@pytest.fixture
def lines(outcomes) -> Callable[[str], list[str]]:
    """`lines(name)`: what is found in a recipe, and what is not checked."""

    def of(name: str) -> list[str]:
        (found,) = (outcomes[str(path)] for path in [*GOOD, *BAD] if path.stem == name)
        return [*found["lines"], *found["unchecked"]]

    return of


@pytest.mark.slow
@pytest.mark.parametrize("name", SAID)
def test_rows_are_named_with_what_is_wrong_with_them(lines, name):
    """Of the examples whose message is not golden by `test_a_message_of_each_code`."""
    assert SAID[name] in "\n".join(lines(name))


@pytest.mark.slow
@pytest.mark.parametrize("name", SILENT)
def test_recipes_without_the_defect_are_told_nothing_of_it(lines, name):
    assert SILENT[name] not in " ".join(line.split(": ")[1] for line in lines(name))


@pytest.mark.slow
@pytest.mark.parametrize("code", ["E350", "E351"])
def test_a_refusal_of_llamafactory_names_line_and_setting(outcomes, code):
    lines = outcomes[str(FIRST_OF_CODE[code])]["lines"]
    assert [line for line in lines if re.search(rf"\.yaml:\d+: {code} \w+: ", line)], lines


@pytest.mark.slow
def test_the_way_out_is_named_where_it_helps(lines):
    assert "give a model folder with --model DIR" in "\n".join(lines("model-on-hub"))


@pytest.mark.slow
def test_the_way_out_is_named_nowhere_else(outcomes):
    for path in FIRST_OF_CODE.values():
        if "model" not in path.stem and path.stem != "E305-template":
            assert not [line for line in outcomes[str(path)]["unchecked"] if "--model" in line], path


@pytest.mark.slow
@pytest.mark.parametrize("name", PLANNED)
def test_preference_data_can_be_planned(outcomes, name):
    (planned,) = (found["planned"] for path, found in outcomes.items() if Path(path).stem == name)
    assert "in all, counted" in planned, planned


def findings_of_theirs(theirs: dict[str, dict], folder: Path) -> dict[str, dict]:
    """Codes with their counts, and "not checked" lines without this machine's paths, by example and model."""
    findings = {}
    for path, outcome in theirs.items():
        unchecked = [line.replace(str(folder), "FOLDER") for line in outcome["unchecked"]]
        codes = sorted(re.search(r"[EWN]\d{3}", line)[0] for line in outcome["lines"])
        name = str(Path(path).relative_to(LLAMAFACTORY / "examples"))
        findings[name] = {"codes": " ".join(codes), "not checked": unchecked}
    return findings


@pytest.mark.slow
def test_the_examples_of_llamafactory(request, prepared_folder, outcomes):
    real_path("lf/examples")
    theirs = {path: each for path, each in outcomes.items() if Path(path.removesuffix(" tiny")) in THEIRS}
    assert not [path for path, outcome in theirs.items() if outcome["crashed"]]
    findings = findings_of_theirs(theirs, prepared_folder)
    if request.config.getoption("regenerate"):
        EXPECTED.write_text(json.dumps(findings, indent=1) + "\n")
    assert findings == read_json(EXPECTED)
    assert len(findings) == 2 * 41
