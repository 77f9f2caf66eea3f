"""Recipes, specs and registries as they may come by mail: links, pipes, tokens, control characters."""

import json
import os
import random
import re
from pathlib import Path

from tools.fuzz.execute import Outcome, execute, scratch
from tools.fuzz.mutations import TOKENS, mutated
from tuneyard.compiler.cli import cli as data
from tuneyard.recipes.__main__ import cli as recipe

SECRET = "hf_fuzzedsecret0123456789"
VALUES: list[object] = [
    True, "true", "../../x", "/etc/passwd", "pipe", "loop", "deep.json", "away", "a\nb", "a\x85b: 1", "-rf",
    "x" * 300, "\x1b]0;owned\x07", "\x9b31m", "a\u202eb", "</script><!--", "=cmd|' /C calc'!A0",
    "${oc.env:HOME}",
    "{{ 'a' * 3000000000 }}", SECRET, f"https://me:{SECRET}@host/x", {"api_key": SECRET}, [{"token": SECRET}],
    {"a": {"b": [1]}}, [[]], 10**30, -1, 1e308, None, "",
]  # fmt: skip
KEYS = (
    "model_name_or_path", "dataset", "dataset_dir", "output_dir", "deepspeed", "fsdp_config", "media_dir",
    "template", "trust_remote_code", "hf_hub_token", "report_to", "run_name", "cutoff_len", "learning_rate",
    "resume_from_checkpoint", "tokenized_path", "lora_target", "adapter_name_or_path", "a\x1bb", "my_api_key",
)  # fmt: skip
COMMANDS = [(recipe, ("check", "--quick", "r.yaml")), (recipe, ("check", "--quick", "--json", "r.yaml"))]
COMMANDS += [(data, ("list",)), (data, ("stats", "a")), (data, ("show", "s.yaml", "--source", "a.jsonl"))]
CONTROLS = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")


def run(seed: str) -> list[str]:
    """Look at one folder by each command; return what is wrong with how they end and with what they print."""
    rng = random.Random(seed)
    wrong: list[str] = []
    with scratch() as folder:
        _write(rng, folder)
        before = sorted(path.name for path in folder.iterdir())
        for program, words in COMMANDS:
            outcome = execute(*words, program=program)
            wrong += [f"{' '.join(words)}: {each}" for each in (*outcome.wrong, *_shown(outcome))]
        after = sorted(path.name for path in folder.iterdir())
        if before != after:
            wrong.append(f"found {after} after, expected {before}")
    return wrong


def _shown(outcome: Outcome) -> list[str]:
    printed = outcome.out + outcome.err
    found = []
    if SECRET in printed:
        found.append(f"prints the secret: {printed}")
    if CONTROLS.search(printed):
        found.append(f"prints control characters: {printed!r}")
    return found


def _write(rng: random.Random, folder: Path) -> None:
    os.mkfifo(folder / "pipe")
    (folder / "loop").symlink_to("loop")
    (folder / "away").symlink_to("/etc/hostname")
    (folder / "deep.json").write_text("[" * 100_000)
    (folder / "a.json").write_text(json.dumps([{"instruction": "a", "output": "b"}] * 3))
    (folder / "a.jsonl").write_text('{"q": "a", "a": "b"}\n')
    settings: dict[str, object] = {
        "model_name_or_path": "a/b", "stage": "sft", "do_train": True, "finetuning_type": "lora",
        "dataset": "a", "dataset_dir": ".", "template": "qwen", "output_dir": "out",
    }  # fmt: skip
    entry: dict[str, object] = {"file_name": "a.json"}
    spec: dict[str, object] = {"about": "a", "like": "qa", "columns": {"question": ["q"], "answer": ["a"]}}
    for _unused in range(rng.choice([1, 1, 2, 4])):
        settings[rng.choice(KEYS)] = rng.choice(VALUES)
        entry[rng.choice(["file_name", "columns", "tags", "formatting", "x\x1b"])] = rng.choice(VALUES)
        spec[rng.choice(["about", "source", "columns", "write", "labels", "x\x1b"])] = rng.choice(VALUES)
    names = ["a", rng.choice([str(value) for value in VALUES])]
    files = {"r.yaml": settings, "dataset_info.json": dict.fromkeys(names, entry), "s.yaml": spec}
    for name, content in files.items():
        text = json.dumps(content).encode()
        if rng.random() < 0.3:
            text = mutated(rng, text, TOKENS)
        (folder / name).write_bytes(text)
