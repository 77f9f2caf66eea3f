"""python -m tests.integration.recipes_new FOLDER MODEL: recipes for every kind of record, trained.

One process for all. FOLDER becomes the current folder. It gets raw rows,
compiled and registered datasets, recipes, and saves/NAME of each training. outcome.json is {name: {"stage":
…, "settings": …, "trained": error or train_loss, "best": …}}. A recipe is trained as it was written.
"""

import json
import os
import shlex
import sys
from pathlib import Path
from typing import Any

from PIL import Image

from testing.tiny import CHATML, make_base, make_llama3, make_seeing, make_tiny
from tests.cli.scoring import invoke
from tests.json_files import read_json, read_lines, write_json
from tuneyard.cli import cli
from tuneyard.core.errors import TuneyardError
from tuneyard.recipes.machine.hardware import machine
from tuneyard.recipes.new.dataset import training_data
from tuneyard.recipes.new.new_recipe import new_recipe
from tuneyard.recipes.new.settings import METHODS, RecipeRequest

ROWS = 20  # the fewest that `data init --split` splits
TOOL = {"type": "function", "function": {"name": "even", "description": "Is a number even?",
        "parameters": {"type": "object", "properties": {"n": {"type": "string"}}}}}  # fmt: skip
Row = dict[str, Any]


def question(n: int) -> str:
    return f"Is the number {n} even? " * (n % 3 + 1)


def answer(n: int) -> str:
    return f"{n} is {'odd' if n % 2 else 'even'}, since its last digit is {n % 10}."


def turns(n: int) -> list[Row]:
    return [{"role": "user", "content": question(n)}, {"role": "assistant", "content": answer(n)}]


def called(n: int) -> Row:
    call = {"type": "function", "function": {"name": "even", "arguments": {"n": str(n)}}}
    messages = [
        {"role": "user", "content": question(n)},
        {"role": "assistant", "content": "", "tool_calls": [call]},
        {"role": "tool", "content": "true"},
        {"role": "assistant", "content": answer(n)},
    ]
    return {"messages": messages, "tools": [TOOL]}


def rated(n: int) -> Row:
    answers = [{"text": answer(n), "pm_score": 3}, {"text": f"{n}? No idea at all.", "pm_score": 1}]
    return {"question": question(n), "answers": answers}


RAW: dict[str, Any] = {
    "text": lambda n: {"text": f"{question(n)}{answer(n)} " * 6},
    "answer": lambda n: {"question": question(n), "answer": answer(n)},
    "turns": lambda n: {"messages": [*turns(n), *turns(n + 1)]},
    "tools": called,
    "pair": lambda n: {"question": question(n), "chosen": answer(n), "rejected": f"{n}? No idea at all."},
    "kto": lambda n: {"messages": turns(n), "label": n % 4 == 0},
    "media": lambda n: {
        "messages": [{"role": "user", "content": f"<image>{question(n)}"}, turns(n)[1]],
        "images": [f"{n}.png"],
    },
    "history": lambda n: {
        "instruction": question(n), "input": "", "output": answer(n),
        "history": [[question(n + 1), answer(n + 1)]],
    },
    "best": rated,
    "label": lambda n: {"text": f"The number {n}: {answer(n)}", "label": ["odd", "even"][n % 2]},
    "choices": lambda n: {"question": question(n), "choices": ["yes", "no", f"maybe {n}"], "answer": n % 2},
    "completion": lambda n: {
        "query": question(n), "tools": json.dumps([TOOL["function"]]),
        "answers": json.dumps([{"name": "even", "arguments": {"n": str(n)}}]),
    },
}  # fmt: skip
"""A raw row by the kind of record that `data init` recognises in it."""
STAGES = {"pair": ["dpo", "orpo", "simpo", "rm"]}
"""Stages of the kinds that several fit; the others get the stage of their rows."""


def tuneyard(*words: object) -> str:
    ended = invoke(cli, *words, prog_name="tuneyard")
    if ended.exit_code:
        return f"{shlex.join(map(str, words))}: exit {ended.exit_code}\n{ended.output}{ended.exception}"
    return ""


def compiled(kind: str) -> str:
    """Write raw rows of a kind, and compile them with an eval split; what failed, or "".

    Of so few rows init proposes a test split alone.
    """
    folder = Path("raw", kind)
    folder.mkdir(parents=True)
    count = ROWS
    rows = [RAW[kind](n) for n in range(count)]
    file = folder / f"{kind}.json"
    write_json(file, rows)
    if kind == "media":
        for n in range(count):
            Image.new("RGB", (56, 56), (n, n, 99)).save(folder / f"{n}.png")
    spec = Path(f"{kind}.yaml")
    failed = tuneyard("data", "init", file, "--split", "0.2", "--out", spec)
    if failed:
        return failed
    spec.write_text(spec.read_text().replace("split: {test: 0.2", "split: {eval: 0.2"))
    return tuneyard("data", "compile", spec)


def trained(name: str) -> Row:
    """Train a recipe as `llamafactory-cli train` does; its loss, or the error."""
    from llamafactory.train.tuner import run_exp

    sys.argv = ["llamafactory-cli", "train", f"{name}.yaml"]
    del sys.argv[1]  # as LLaMA-Factory's own launcher does
    try:
        run_exp()
    except Exception as error:  # noqa: BLE001 - whatever a recipe does is reported under its name
        return {"trained": f"{type(error).__name__}: {error}"}
    folder = Path("saves", name)
    state = read_json(folder / "trainer_state.json")
    return {
        "trained": read_json(folder / "all_results.json")["train_loss"],
        "steps": state["max_steps"],
        "best": state["best_model_checkpoint"],
    }


def untrained_requests(model: str) -> list[RecipeRequest]:
    """Each method on GPUs; other models on a LLaMA-Factory folder without a manifest.

    `odd` has a chat template that no template of LLaMA-Factory writes.
    """
    make_base(Path("base"))
    Path("data").mkdir()
    registry = {}
    for split in ("train", "eval"):
        rows = read_lines(Path(f"dataset_info/answer/answer_{split}.jsonl"))
        plain = [{key: row[key] for key in ("instruction", "input", "output")} for row in rows]
        write_json(Path(f"data/own_{split}.json"), plain)
        registry[f"own_{split}"] = {"file_name": f"own_{split}.json"}
    write_json(Path("data/dataset_info.json"), registry)
    answers, own = training_data("answer_train", None, None), training_data("own_train", Path("data"), None)
    requests = []
    for method in METHODS:
        name = "A100-80"
        if method == "full":
            name = "4xA100-80"
        out = Path(f"method-{method}.yaml")
        requests.append(RecipeRequest(answers, model, method, machine(name), out))
    make_llama3(Path("llama3"))
    make_tiny(Path("odd"))
    Path("odd/chat_template.jinja").write_text(CHATML.replace("m['content']", "m['content'] | upper"))
    t4 = machine("T4")
    others = ("base", "llama3", "odd")
    seen = training_data("media_train", None, None)
    requests.append(RecipeRequest(seen, model, "lora", t4, Path("blind.yaml")))
    return requests + [RecipeRequest(own, name, "lora", t4, Path(f"{name}.yaml")) for name in others]


def main(folder: Path, model: str) -> None:
    os.chdir(folder)
    make_seeing(Path("sees"), weights=True)
    outcome: dict[str, Row] = {}
    requests = []
    for kind in RAW:
        failed = compiled(kind)
        for stage in STAGES.get(kind, [""]):
            name = f"{kind}-{stage}".removesuffix("-")
            outcome[name] = {"failed": failed}
            if not failed:
                requests.append(request_of(name, kind, stage, model))
    for request in [*requests, *untrained_requests(model)]:
        name = request.out.stem
        outcome.setdefault(name, {"failed": ""})
        try:
            recipe = new_recipe(request)
        except TuneyardError as error:
            outcome[name]["failed"] = str(error)
            continue
        request.out.write_text(recipe.text)
        outcome[name]["problems"] = [problem.line() for problem in recipe.problems]
        outcome[name]["summary"] = recipe.summary
    for request in requests:
        name = request.out.stem
        if not outcome[name]["failed"]:
            outcome[name] |= trained(name)
    Path("outcome.json").write_text(json.dumps(outcome, indent=1))


def request_of(name: str, kind: str, stage: str, model: str) -> RecipeRequest:
    """The request that `recipe new` makes of its options."""
    data = training_data(f"{kind}_train", None, stage or None)
    model = "sees" if kind == "media" else model
    return RecipeRequest(data, model, "lora", machine("cpu"), Path(f"{name}.yaml"))


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2])
