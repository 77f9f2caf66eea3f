"""Run scoring commands in this process, and read what they wrote."""

from collections.abc import Callable
from contextvars import copy_context
from pathlib import Path
from typing import Any

import click
from click.testing import CliRunner, Result

from tests.json_files import read_json, read_lines
from tests.serving import answering
from tuneyard.eval.__main__ import cli as eval_group
from tuneyard.eval.models.load import Model

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


def cli_of(name: str) -> click.Command:
    """The command `eval NAME`: "ab" is a group of its own, "nli" a command."""
    command = eval_group.get_command(click.Context(eval_group), name)
    assert command is not None, name
    return command


def even_rows(count: int) -> list[dict[str, object]]:
    """Records of a dataset whose answers are yes and no in turn."""
    return [{"instruction": f"Is {n} even?", "output": ("yes", "no")[n % 2], "idx": n} for n in range(count)]


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


def answer_logp(model: Model, messages: list[dict[str, str]], answer: str) -> tuple[float, int]:
    """The definition: log p of an answer and its end after a conversation, and their number of tokens."""
    import torch

    template, tokenize = model.tokenizer.apply_chat_template, model.tokenizer
    asked = template(messages, tokenize=False, add_generation_prompt=True)
    whole = template([*messages, {"role": "assistant", "content": answer}], tokenize=False)
    prompt, told = (
        tokenize(text, add_special_tokens=False)["input_ids"] for text in (asked, whole[len(asked) :])
    )
    with torch.inference_mode():
        logs = model.net(torch.tensor([prompt + told])).logits[0].double().log_softmax(-1)
    return sum(logs[len(prompt) + n - 1, token].item() for n, token in enumerate(told)), len(told)


def results(folder: Path) -> dict[str, Any]:
    """results.json of a model on a dataset."""
    return read_json(folder / "results.json")


def predictions(folder: Path) -> list[dict[str, Any]]:
    """The rows of a model on a dataset."""
    return read_lines(folder / "predictions.jsonl")
