"""`run` with the words FOLDER MODEL EXAMPLE...: check recipes in one process.

LLaMA-Factory's import takes 10 s, so one process answers for all of them, as in a `recipe check` of them all.
FOLDER has what `make_models` writes, so that this process need not import torch. It gets outcome.json, for
each path: `codes` of errors, codes of all `findings`, their `lines`, what is `unchecked`, the lines of a
plan, and the traceback of a crash (`crashed`) or null. `quick_findings` needs no process of its own.
"""

import json
import re
import sys
import traceback
from functools import partial
from pathlib import Path

import yaml

from testing.tiny import (
    make_base,
    make_experts,
    make_llama2,
    make_llama3,
    make_quantised,
    make_qwen3,
    make_seeing,
    write_adapter,
)
from tuneyard.core.errors import Problem, TuneyardError
from tuneyard.recipes.checking.checked import ask_check, not_checked, quick_check
from tuneyard.recipes.machine.hardware import machine
from tuneyard.recipes.planning.lines import plan_lines
from tuneyard.recipes.planning.training_plan import make_plan, read_offer
from tuneyard.recipes.recipe import Recipe, read_recipe

ROOT = Path(__file__).resolve().parents[2]
EXAMPLES = ROOT / "tests/examples/recipes"
BASE = yaml.safe_load((EXAMPLES / "base.yaml").read_text(encoding="utf-8"))
"""What an example leaves out."""
MODELS = {
    "SEES": make_seeing, "LLAMA3": make_llama3, "BASE": make_base, "EXPERTS": make_experts,
    "GPTQ": make_quantised, "AWQ": partial(make_quantised, method="awq"),
    "AQLM": partial(make_quantised, method="aqlm"), "QWEN3": make_qwen3,
    "VISION3": partial(make_seeing, kind="qwen3_vl"), "LLAMA2": make_llama2,
}  # fmt: skip
"""Folders of tiny models that stand for these names in examples."""
PLANNED = ("dpo-alpaca", "dpo-sharegpt", "simpo", "reward-alpaca", "kto-alpaca")
"""Examples that are also planned: preference data."""
STAND_INS = {
    "llama3": "LLAMA3", "llama2": "LLAMA2", "qwen3_nothink": "QWEN3", "qwen3_vl_nothink": "VISION3",
    "qwen2_vl": "SEES", "None": "QWEN3",
}  # fmt: skip
"""Tiny models for LLaMA-Factory's examples, by template."""
AS_IT_IS = b"# as it is\n"
"""The line of an example that is a whole recipe by itself, such as one that is not YAML."""


def make_tokens(folder: Path) -> None:
    """Write four tokenized rows for training, as LLaMA-Factory saves them at `tokenized_path`."""
    from datasets import Dataset, DatasetDict

    rows = Dataset.from_list([{"input_ids": [1, 2, 3], "attention_mask": [1] * 3, "labels": [1, 2, 3]}] * 4)
    DatasetDict({"train": rows}).save_to_disk(folder)


def stand_in(path: Path, template: str) -> str:
    """Name of the tiny model of the same kind as that of one of LLaMA-Factory's examples."""
    for method in ("gptq", "awq", "aqlm"):
        if path.stem.endswith(method):
            return method.upper()
    return STAND_INS.get(template, "MODEL")


def written(path: Path, folder: Path, model: str, tiny: bool) -> tuple[Recipe, str]:
    """Return an example (or any recipe of others) as a whole recipe, and the machine it is checked for.

    `tiny`: a recipe of others on a tiny model of its kind, not on its own.
    """
    out = folder / ("tiny" if tiny else "own") / path.parent.name / path.name
    out.parent.mkdir(parents=True, exist_ok=True)
    content = path.read_bytes()
    if AS_IT_IS in content:
        out.write_bytes(content)
        return read_recipe(out), "gpu"
    text = content.decode()
    settings = yaml.safe_load(text)
    if EXAMPLES in path.parents:
        settings = {**BASE, **(settings or {})}
    else:  # one of LLaMA-Factory's own
        settings |= {"output_dir": "OUT", "dataset_dir": str(folder / "data")}
        if isinstance(settings.get("deepspeed"), str):
            settings["deepspeed"] = str(folder / settings["deepspeed"])
        if tiny:
            settings["model_name_or_path"] = stand_in(path, str(settings.get("template")))
    whole = yaml.safe_dump({key: value for key, value in settings.items() if value is not None})
    if EXAMPLES not in path.parents and not tiny:
        out.write_text(whole.replace("OUT", str(folder / "saves" / path.stem)))
        return read_recipe(out), "gpu"
    for name in (*MODELS, "ADAPTER", "TOKENS"):
        whole = whole.replace(name, str(folder / name.lower()))
    out.write_text(whole.replace("MODEL", model).replace("OUT", str(folder / "saves" / path.stem)))
    return read_recipe(out), text.partition("# for: ")[2].partition("\n")[0] or "gpu"


def outcome(path: Path, folder: Path, model: str, tiny: bool = False) -> dict[str, object]:
    """Return what `recipes check` finds in one recipe."""
    try:
        recipe, name = written(path, folder, model, tiny)
        known = quick_check(recipe, machine(name))
        asked = ask_check(known, None)
    except TuneyardError as error:  # what no recipe can be read from
        unread = {"lines": [str(error)], "unchecked": [], "crashed": None, "planned": ""}
        return {"codes": ["E"], "findings": ["E"], **unread}
    except Exception:  # noqa: BLE001 - a crash on any recipe is reported under its name
        return {"codes": [], "findings": [], "lines": [], "unchecked": [], "crashed": traceback.format_exc()}
    problems = [*known.problems, *asked.problems]
    planned = []
    if path.stem in PLANNED:
        planned = plan_lines(make_plan(recipe, read_offer("A100-80"), None))
    return {
        "planned": "\n".join(planned),
        "codes": sorted({problem.code for problem in problems if problem.code[0] == "E"}),
        "findings": sorted({problem.code for problem in problems}),
        "lines": [problem.line() for problem in problems],
        "unchecked": [*not_checked(asked, str(recipe.settings.get("model_name_or_path")))],
        "crashed": None,
    }


def make_models(folder: Path, model: str) -> None:
    """Write what examples name: models, an adapter and tokens."""
    for name, make in MODELS.items():
        make(folder / name.lower())
    write_adapter(folder / "adapter", rank=8, alpha=16, base_model_name_or_path=model)
    make_tokens(folder / "tokens")


def quick_findings(folder: Path, model: str) -> dict[str, list[str]]:
    """Line, code, key and figures of all that the quick check finds in each example."""
    findings = {}
    for path in sorted(EXAMPLES.glob("*/*.yaml")):
        try:
            recipe, name = written(path, folder, model, tiny=False)
            problems = quick_check(recipe, machine(name)).problems
        except TuneyardError as error:
            findings[path.stem] = [type(error).__name__]
        else:
            findings[path.stem] = [facts(problem) for problem in problems]
    return findings


def facts(problem: Problem) -> str:
    """Everything of a problem but its words and folders."""
    figures = re.findall(r"(?<![\w/.-])\d[\d.,]*(?![\w/-])", f"{problem.message} {problem.hint}")
    return " ".join([Path(problem.place).name, problem.code, problem.field, *figures]).rstrip(".,")


def run() -> None:
    """Check the recipes in sys.argv."""
    folder, model = Path(sys.argv[1]), sys.argv[2]
    paths = [Path(name) for name in sys.argv[3:]]
    found = {str(path): outcome(path, folder, model) for path in paths}
    for path in paths:
        if EXAMPLES not in path.parents:
            found[f"{path} tiny"] = outcome(path, folder, model, tiny=True)
    (folder / "outcome.json").write_text(json.dumps(found, indent=1))
