"""python -m tests.integration.recipes_examples FOLDER MODEL [EXAMPLE...]: check recipes in one process.

LLaMA-Factory's import takes 10 s, so one process answers for all of them, as in a `recipe check` of them all.
FOLDER gets outcome.json: {path: {"codes": […], "lines": […], "unchecked": […], "crashed": text or null}}.
"""

import json
import sys
import traceback
from pathlib import Path

import yaml

from tests.tiny import make_base, make_experts, make_llama3, make_seeing
from tuneyard.core.errors import TuneyardError
from tuneyard.recipes.check import ask_check, not_checked, not_local, quick_check
from tuneyard.recipes.hardware import machine
from tuneyard.recipes.llamafactory_client import LlamaFactory
from tuneyard.recipes.plan import _lines, make_plan, read_offer
from tuneyard.recipes.recipe import Recipe, read_recipe

ROOT = Path(__file__).resolve().parents[2]
EXAMPLES = ROOT / "tests/examples/recipes"
MODELS = {"SEES": make_seeing, "LLAMA3": make_llama3, "BASE": make_base, "EXPERTS": make_experts}
"""Folders of tiny models that stand for these names in examples."""


def written(path: Path, folder: Path, model: str) -> tuple[Recipe, str]:
    """Return an example (or any recipe of others) as a whole recipe, and the machine it is checked for."""
    text = path.read_text(encoding="utf-8")
    settings = yaml.safe_load(text)
    if EXAMPLES in path.parents:
        settings = {**yaml.safe_load((EXAMPLES / "base.yaml").read_text(encoding="utf-8")), **settings}
    else:  # one of LLaMA-Factory's own, on the tiny model where that can stand for its model
        settings |= {"output_dir": "OUT", "dataset_dir": str(folder / "data")}
        if isinstance(settings.get("deepspeed"), str):
            settings["deepspeed"] = "recipes/deepspeed/z3.json"
        if "vl_" not in path.name:
            settings["model_name_or_path"] = "LLAMA3" if settings.get("template") == "llama3" else "MODEL"
    out = folder / path.parent.name / path.name
    out.parent.mkdir(exist_ok=True)
    whole = yaml.safe_dump({key: value for key, value in settings.items() if value is not None})
    for name in MODELS:
        whole = whole.replace(name, str(folder / name.lower()))
    out.write_text(whole.replace("MODEL", model).replace("OUT", str(folder / "saves" / path.stem)))
    return read_recipe(out), text.partition("# for: ")[2].partition("\n")[0] or "gpu"


def outcome(llamafactory: LlamaFactory, path: Path, folder: Path, model: str) -> dict[str, object]:
    """Return what `recipes check` finds in one recipe."""
    try:
        recipe, name = written(path, folder, model)
        known = quick_check(recipe, machine(name))
        asked = ask_check(llamafactory, known, None)
    except Exception:  # noqa: BLE001 - a crash on any recipe is reported under its name
        return {"codes": [], "lines": [], "unchecked": [], "crashed": traceback.format_exc()}
    problems = [*known.problems, *asked.problems]
    try:
        planned = []
        if not any(problem.code[0] == "E" for problem in problems):
            planned = _lines(make_plan(llamafactory, recipe, read_offer("A100-80"), None))
    except TuneyardError as error:  # no config, or a method that is not planned
        planned = [str(error)]
    return {
        "planned": "\n".join(planned),
        "codes": sorted({problem.code for problem in problems if problem.code[0] == "E"}),
        "lines": [problem.line() for problem in problems],
        "unchecked": [
            *not_local(known.datasets),
            *not_checked(recipe, asked.answer, str(recipe.settings.get("model_name_or_path"))),
        ],
        "crashed": None,
    }


def main(folder: Path, model: str, paths: list[Path]) -> None:
    for name, make in MODELS.items():
        make(folder / name.lower())
    with LlamaFactory(several=True) as llamafactory:
        found = {str(path): outcome(llamafactory, path, folder, model) for path in paths}
    (folder / "outcome.json").write_text(json.dumps(found, indent=1))


if __name__ == "__main__":
    named = [Path(name) for name in sys.argv[3:]] or sorted(EXAMPLES.glob("*/*.yaml"))
    main(Path(sys.argv[1]), sys.argv[2], named)
