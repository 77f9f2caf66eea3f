"""python -m tests.integration.recipes_shrunk FOLDER MODEL: every recipe parsed, and a shrunk copy trained.

One process for all. FOLDER gets the data, one saves/NAME each,
and outcome.json: {name: {"parsed": error or null, "trained": error or train_loss, "replaced": [keys]}}.
"""

import json
import re
import sys
from pathlib import Path

from PIL import Image

from testing.tiny import make_seeing
from tests.json_files import read_json, write_json
from tuneyard.recipes.recipe import read_recipe

ROOT = Path(__file__).resolve().parents[2]
TEXTS = [f"Is {n} even? Answer yes or no." for n in range(24)]
ANSWER = {"role": "assistant", "content": "判断:是\n\n原因：无"}
OPENAI = {"role_tag": "role", "content_tag": "content", "user_tag": "user", "assistant_tag": "assistant"}
TOOLS = json.dumps(
    [{"name": "even", "parameters": {"type": "object", "properties": {"n": {"type": "string"}}}}]
)


def called(text: str) -> dict:
    """Return a conversation in which a tool is called."""
    call = json.dumps({"name": "even", "arguments": {"n": text}})
    turns = [("human", text), ("function_call", call), ("observation", "true"), ("gpt", "yes")]
    return {"conversations": [{"from": who, "value": said} for who, said in turns], "tools": TOOLS}


FORMATS = {
    "alpaca": ({}, lambda text: {"instruction": text, "input": "", "output": "yes"}),
    "text": ({"columns": {"prompt": "text"}}, lambda text: {"text": text * 9}),
    "sharegpt": (
        {"formatting": "sharegpt", "columns": {"messages": "text"}, "tags": OPENAI},
        lambda text: {"text": [{"role": "user", "content": text}, ANSWER]},
    ),
    "pairs": (
        {"ranking": True, "columns": {"prompt": "instruction", "chosen": "chosen", "rejected": "rejected"}},
        lambda text: {"instruction": text, "chosen": "yes", "rejected": "no"},
    ),
    "kto": (
        {"columns": {"prompt": "instruction", "response": "output", "kto_tag": "kto_tag"}},
        lambda text: {"instruction": text, "output": "yes", "kto_tag": len(text) % 2 == 0},
    ),
    "media": (
        {
            "formatting": "sharegpt",
            "columns": {"messages": "messages", "images": "images"},
            "tags": OPENAI,
        },
        lambda text: {
            "messages": [{"role": "user", "content": f"<image>{text}"}, ANSWER],
            "images": ["seen.png"],
        },
    ),
    "tools": (
        {"formatting": "sharegpt", "columns": {"messages": "conversations", "tools": "tools"}},
        called,
    ),
}  # fmt: skip
SMALL = {
    "max_steps": 3,
    "cutoff_len": 64,
    "per_device_train_batch_size": 2,
    "per_device_eval_batch_size": 2,
    "gradient_accumulation_steps": 2,
    "use_cpu": True,
    "overwrite_output_dir": True,
    "preprocessing_num_workers": None,
    "disable_gradient_checkpointing": True,
}


def format_of(dataset: str) -> str:
    words = ("text", "tools", "pairs", "kto", "media")
    form = next((word for word in words if word in dataset), "alpaca")
    return "sharegpt" if "defect" in dataset else form


def register(folder: Path, names: list[str]) -> None:
    Image.new("RGB", (64, 64), "red").save(folder / "seen.png")
    registry = {}
    for name in names:
        entry, row = FORMATS[format_of(name)]
        write_json(folder / f"{name}.json", [row(text) for text in TEXTS])
        registry[name] = {"file_name": f"{name}.json", **entry}
    write_json(folder / "dataset_info.json", registry)


def shrink(settings: dict, folder: Path, model: str, name: str) -> tuple[dict, list[str]]:
    """Return the recipe at a size for a test, and which of its settings were replaced to get there."""
    small = {**settings, **SMALL, "model_name_or_path": model, "dataset_dir": str(folder)}
    small["output_dir"] = str(folder / "saves" / name)
    if re.match(r"\d+\.", str(settings.get("lora_target"))):  # layers by number, of which MODEL has fewer
        small["lora_target"] = re.sub(r"\d+\.", "1.", settings["lora_target"])
    for key in ("save_steps", "eval_steps"):
        if key in small:
            small[key] = 3
    if "media_dir" in small:
        small |= {"media_dir": str(folder), "model_name_or_path": str(folder / "sees")}
    small.pop("deepspeed", None)  # needs torchrun; tests/integration/test_recipes_ranks.py runs it
    return small, sorted(key for key in settings if settings[key] != small.get(key))


def attempt(work) -> object:
    try:
        return work()
    except Exception as error:  # noqa: BLE001 - whatever a recipe does is reported under its name
        return f"{type(error).__name__}: {error}"


def main(folder: Path, model: str) -> None:
    from llamafactory.hparams import get_train_args
    from llamafactory.train.tuner import run_exp

    paths = sorted((ROOT / "recipes").glob("*.yaml"))
    recipes = {path.stem: read_recipe(path) for path in paths}
    register(
        folder, sorted({n for r in recipes.values() for k in ("dataset", "eval_dataset") for n in r.names(k)})
    )
    make_seeing(folder / "sees", weights=True)
    outcome = {}
    for name, recipe in recipes.items():
        asked = {k: v for k, v in recipe.settings.items() if k != "deepspeed"}
        parsed = attempt(lambda asked=asked: get_train_args({**asked, "use_cpu": True}) and None)
        small, replaced = shrink(recipe.settings, folder, model, name)
        trained = attempt(lambda small=small: run_exp(small))
        results = folder / "saves" / name / "all_results.json"
        loss = read_json(results)["train_loss"] if trained is None else trained
        outcome[name] = {"parsed": parsed, "trained": loss, "replaced": replaced}
    (folder / "outcome.json").write_text(json.dumps(outcome, indent=1))


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2])
