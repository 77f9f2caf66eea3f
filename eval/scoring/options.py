"""The options that the scoring commands share. Their values become one ScoringRequest.

An option with `cls=RescorableOption` also goes with --rescore: it changes how an answer is read, not the
answer.
"""

import math
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import click

from tuneyard.core.datasets import registry_folder
from tuneyard.core.execution.options import ray_option, workers_option
from tuneyard.core.language.message import _
from tuneyard.core.weights.dtypes import DTYPES
from tuneyard.eval.models.backends import DEFAULT, backend_kinds, backends_help
from tuneyard.eval.models.connection import TIMEOUT
from tuneyard.eval.models.generate import PRESETS
from tuneyard.eval.runs.results import MERGED, UNMERGED

Option = Callable[[Callable[..., Any]], Callable[..., Any]]
"""Decorator that adds an option to a command."""


class Finite(click.FloatRange):
    """A range of numbers without nan and inf. Click's own range accepts nan, which is never out of range."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """Parse a number; a usage error if it is not finite or out of range."""
        number = float(super().convert(value, param, ctx))
        if not math.isfinite(number):
            self.fail(_("{value} is not a finite number.", value=value), param, ctx)
        return number


class RescorableOption(click.Option):
    """An option that also goes with --rescore, since the model's outputs do not depend on it."""


def with_options(options: Sequence[Option], command: Callable[..., Any]) -> Callable[..., Any]:
    """The function of a command with these options, in their order."""
    for option in reversed(options):
        command = option(command)
    return command


number: Callable[..., Option] = partial(click.option, type=click.IntRange(1), metavar="N")
"""Option of a whole number, from 1 on unless it has another `type`."""


def _without_model(context: click.Context, _option: click.Parameter, run: Path | None) -> Path | None:
    """Give the model a default: kept outputs need none."""
    if run:
        context.default_map = {"model": ""}
    return run


PATH = click.Path(path_type=Path)
rescoring = click.option(
    "--rescore",
    cls=RescorableOption,
    is_eager=True,  # before --model
    callback=_without_model,
    type=PATH,
    metavar="RESULTS",
    help="Score the outputs of an earlier run again, without --model.",
)
same_base = click.option(
    "--same-base", is_flag=True, help="The base that an adapter names and --model are the same model."
)
dtype = click.option("--dtype", type=click.Choice(list(DTYPES)), help="[fp32 on CPU, bf16 on GPU]")


loading_options = [
    same_base,
    click.option(
        "--template", metavar="NAME", help="Prompt with LLaMA-Factory's template, not the saved one."
    ),
    click.option("--bos", is_flag=True, help="Without a chat template: begin the prompt with BOS."),
    dtype,
    click.option(
        "--quantize",
        type=click.Choice([4, 8]),
        help="Load the weights as NF4 or 8-bit integers.",
    ),
]


server_options = [
    click.option("--url", metavar="URL", help="The server, e.g. http://localhost:8000/v1."),
    click.option(
        "--served-model",
        metavar="NAME",
        help="The model's name on the server.  [as --model, or its only one]",
    ),
    click.option(
        "--timeout",
        type=Finite(0, min_open=True),
        metavar="SECONDS",
        help=f"The longest wait for the server's answer.  [{TIMEOUT:g}]",
    ),
]


adapter_option = partial(click.option, "--adapter", "adapters", multiple=True, metavar="NAME|PATH|NAME=PATH")
ADAPTERS = "NAME is saves/NAME; NAME=a:0.5+b:0.5 is a sum. Repeatable."
"""The end of its help."""


model_options: list[Option] = [
    click.option("--model", required=True, metavar="DIR|ID", help="Model folder or hub id."),
    adapter_option(help=f"Score this adapter too. {ADAPTERS}"),
    click.option("--no-base", is_flag=True, help="Do not score the base itself."),
    click.option(
        "--backend",
        type=click.Choice(list(backend_kinds())),
        default=DEFAULT,
        show_default=True,
        help=backends_help(),
    ),
    *server_options,
    number(
        "--max-refused",
        type=click.IntRange(0),
        default=0,
        show_default=True,
        help="Rows of a dataset that the server may refuse. They count as unanswered.",
    ),
    number("--tensor-parallel", help="vllm: divide each layer among N GPUs."),
    number("--pipeline-parallel", help="vllm: divide the layers among N groups of GPUs."),
    *loading_options,
    click.option(
        "--apply",
        type=click.Choice([UNMERGED, MERGED]),
        default=UNMERGED,
        show_default=True,
        help="Add the adapters in separate products (exact), or merge them into the weights (rounded).",
    ),
    number("--batch-tokens", help="Tokens in a batch.  [2048 on CPU, 32768 on GPU]"),
]
dataset_dir = click.option(
    "--dataset-dir",
    cls=RescorableOption,
    type=PATH,
    callback=lambda _context, _option, folder: registry_folder(folder) if folder else None,
    metavar="DIR",
    help="Folder of dataset_info.json.  [dataset_info, otherwise data]",
)
data_options = [
    click.option(
        "--dataset",
        "datasets",
        cls=RescorableOption,
        multiple=True,
        metavar="NAME",
        help="A registered dataset. Repeatable.",
    ),
    dataset_dir,
    click.option(
        "--data",
        cls=RescorableOption,
        multiple=True,
        type=PATH,
        metavar="FILE",
        help="A JSON, JSON Lines or (prompts alone) .txt file.",
    ),
]
set_options = [
    *data_options,
    click.option(
        "--cluster",
        cls=RescorableOption,
        metavar="COLUMN",
        help="Examples that share its value are not independent; `none`: all are. [the manifest's]",
    ),
]
shots_options: list[Option] = [
    number(
        "--shots",
        type=click.IntRange(0),
        default=0,
        help="Score the base also after N examples of the training split, as `base (N shots)`.",
    ),
    click.option(
        "--shots-from",
        multiple=True,
        metavar="[SET=]NAME",
        help="The training split, a registered dataset or a file. [SET's name with train] Repeatable.",
    ),
]
run_options: list[Option] = [
    workers_option,
    ray_option,
    click.option("--out", cls=RescorableOption, required=True, type=PATH, help="Folder of the results."),
    number("--limit", help="The first N examples of each dataset."),
    click.option("--resume", is_flag=True, help="Resume the run in OUT; refused if anything changed."),
    click.option("--force", cls=RescorableOption, is_flag=True, help="Start this command's run in OUT anew."),
]
repeat_option = number(
    "--repeat",
    type=click.IntRange(2),
    help="Sampled answers: draw them N times, and report mean and spread.",
)
seed_option = number("--seed", type=click.IntRange(0), help="Sampled answers: draw others.")


generate_options = [
    click.option(
        "--preset",
        type=click.Choice(list(PRESETS)),
        help="generate: sample as the model's generation_config says, up to 512 tokens.",
    ),
    click.option("--think", is_flag=True, help="generate: let a model think before it answers."),
]
"""Options of commands that generate, besides --max-new-tokens, whose default is the command's."""
sampling_options: list[Option] = [
    click.option("--temperature", type=Finite(0), metavar="T", help="Sample the answers.  [0: greedy]"),
    click.option(
        "--top-p",
        type=Finite(0, 1, min_open=True),
        metavar="P",
        help="--temperature: only from the most likely tokens that add up to P.  [1]",
    ),
]
"""Options of commands whose answers may be sampled without a preset. They go before those of --preset."""
