"""Run scoring commands in this process, and read what they wrote."""

import json
from pathlib import Path
from typing import Any

import click

PAIRS = [
    {"instruction": f'Does "{a}" imply that "{b}"?', "input": "", "output": output, "idx": n + 10}
    for n, (a, b, output) in enumerate(
        [
            ("A man is walking a dog.", "A person is outside.", "yes"),
            ("A man sleeps.", "A person is outside with a dog and a cat.", "no"),
            ("She sings.", "She is loud.", "maybe"),
            ("He eats bread and butter in the kitchen of his house.", "He eats.", "yes"),
            ("不确定", "A dog.", "no"),
        ]
    )
]
"""Records of a dataset as `rte` writes it: yes, no or maybe."""


def call(command: click.Command, *arguments: object) -> None:
    """Run a command, whose errors are raised."""
    command.main(list(map(str, arguments)), standalone_mode=False)


def results(folder: Path) -> dict[str, Any]:
    """results.json of a model on a dataset."""
    return json.loads((folder / "results.json").read_text(encoding="utf-8"))


def predictions(folder: Path) -> list[dict[str, Any]]:
    """The rows of a model on a dataset."""
    lines = (folder / "predictions.jsonl").read_text(encoding="utf-8").splitlines()
    return [json.loads(line) for line in lines]
