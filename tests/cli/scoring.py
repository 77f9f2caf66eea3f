"""Run scoring commands in this process, and read what they wrote."""

from collections.abc import Callable
from contextvars import copy_context
from pathlib import Path
from typing import Any

import click
from click.testing import CliRunner, Result

from tests.json_files import read_json, read_lines
from tests.serving import answering

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
    """Run a command, whose errors are raised. What it sets for its process (`--lang`) ends with it."""
    copy_context().run(command.main, list(map(str, arguments)), standalone_mode=False)


def ask(
    command: click.Command,
    answer: Callable[[str], str],
    *arguments: object,
    heard: list[list[dict]] | None = None,
) -> None:
    """Run a scoring command on the model m of a server that answers as `answering` says."""
    with answering(answer, heard) as url:
        call(command, *arguments, "--model", "m", "--backend", "openai", "--url", url)


def invoke(command: click.Command, *words: object, **options: Any) -> Result:
    """Run a command: what it printed, its exit code and its error. `--lang` ends with it."""
    return copy_context().run(CliRunner().invoke, command, list(map(str, words)), **options)


def results(folder: Path) -> dict[str, Any]:
    """results.json of a model on a dataset."""
    return read_json(folder / "results.json")


def predictions(folder: Path) -> list[dict[str, Any]]:
    """The rows of a model on a dataset."""
    return read_lines(folder / "predictions.jsonl")
