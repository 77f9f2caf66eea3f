"""The options that the scoring commands share, and their values as one ScoringRequest.

An option with `cls=RescorableOption` also goes with --rescore: it changes how an answer is read, not the
answer.
"""

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, fields, replace
from datetime import date
from functools import partial
from pathlib import Path
from typing import Any

import click
from click.core import ParameterSource

from tuneyard.core.cli.main import command_line
from tuneyard.core.datasets import registry_folder
from tuneyard.core.errors import RequestError
from tuneyard.core.execution.options import ray_option, workers_option
from tuneyard.core.language.message import _, joined
from tuneyard.core.text.quoting import shell
from tuneyard.core.weights.dtypes import DTYPES
from tuneyard.eval.data.dataset import find_datasets
from tuneyard.eval.models.connection import TIMEOUT
from tuneyard.eval.models.generate import PRESETS
from tuneyard.eval.runs.results import (
    MERGED,
    UNMERGED,
    check_same,
    kept_day,
    read_identity,
    read_run,
    shown_command,
)

SETTINGS = ("template", "bos", "apply", "quantize", "limit", "think", "cluster", "preset")
"""The options of every command that --resume refuses to change."""
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


@dataclass(frozen=True, slots=True)
class ScoringRequest:
    """The values of a command line: a field for each option that the scoring commands share."""

    model: str
    out: Path
    adapters: tuple[str, ...] = ()
    datasets: tuple[str, ...] = ()
    data: tuple[Path, ...] = ()
    dataset_dir: Path | None = None
    cluster: str | None = None
    backend: str = "hf"
    url: str | None = None
    served_model: str | None = None
    timeout: float | None = None
    tensor_parallel: int | None = None
    pipeline_parallel: int | None = None
    template: str | None = None
    bos: bool = False
    apply: str = UNMERGED
    dtype: str | None = None
    quantize: int | None = None
    batch_tokens: int | None = None
    max_new_tokens: int = 0
    think: bool = False
    preset: str | None = None
    max_refused: int = 0
    temperature: float | None = None
    top_p: float | None = None
    seed: int | None = None
    repeat: int | None = None
    limit: int | None = None
    no_base: bool = False
    same_base: bool = False
    workers: int | None = None
    ray: str | None = None
    resume: bool = False
    force: bool = False
    rescore: Path | None = None
    day: date | None = None
    """The date in prompts whose chat template writes one."""
    command: str = ""
    """The module of the command that scores, such as `eval.nli`."""
    by: str = ""
    """The module that the user called, if it is not the scoring command: `eval.suite`."""

    @property
    def draws(self) -> bool:
        """True if answers are drawn: the same options give greedy ones without them."""
        return bool(self.preset or self.temperature)

    def need_probabilities(self) -> None:
        """`RequestError` for a backend that does not give those of a whole text."""
        if self.backend != "hf":
            raise RequestError(
                _(
                    "{command} needs the model's probabilities, which a server does not show",
                    command=self.command,
                )
            )


def take(options: dict[str, Any], command: str = "") -> ScoringRequest:
    """Move the shared options out of `options` (by Click's names) into a request of the `command`.

    With --rescore, options that the command line leaves open come from the kept run. `RequestError` if
    options contradict one another.
    """
    if options.get("rescore"):
        options.update(_kept_options(options, command))
    names = [field.name for field in fields(ScoringRequest) if field.name in options]
    request = ScoringRequest(command=command, **{name: options.pop(name) for name in names})
    request = replace(request, day=date.today())
    if request.resume:
        run = read_run(request.out)
        request = replace(request, day=kept_day(request.out) or request.day)
        settings = run["settings"]
        given = {name: getattr(request, name) for name in SETTINGS}
        check_same(request.out, run, {"settings": {**settings, **given}})  # before a model is loaded
        if request.dtype is None and settings.get("dtype") in DTYPES:  # servers have none
            request = replace(request, dtype=settings["dtype"])
    if request.preset and request.backend != "hf":
        raise RequestError(
            _("--preset reads generation_config.json: leave out --backend {name}", name=request.backend)
        )
    if request.top_p is not None and not request.draws:
        raise RequestError(
            _(
                "--top-p {value:g}: greedy answers have no use for it: add --temperature, e.g. 0.7",
                value=request.top_p,
            )
        )
    if request.max_refused and request.backend != "openai":
        raise RequestError(
            _(
                "--max-refused {number}: only servers refuse rows; add --backend openai, or leave it out",
                number=request.max_refused,
            )
        )
    divides = request.tensor_parallel or request.pipeline_parallel
    if divides and request.backend != "vllm" and not request.rescore:  # which keeps the settings of its run
        raise RequestError(
            _("--tensor-parallel and --pipeline-parallel: only vLLM divides a model: add --backend vllm")
        )
    return request


def _kept_options(options: dict[str, Any], command: str) -> dict[str, Any]:
    """Options of the run to score again, for those that the command line leaves open.

    `RequestError` for a run of another command.
    """
    explicit = _explicit_options()
    fixed = [option.opts[0] for option in explicit.values() if not isinstance(option, RescorableOption)]
    if fixed:
        raise RequestError(
            _(
                "--rescore keeps the model's outputs: {names} would change them or has no effect; "
                "leave it out, or score without --rescore",
                names=joined(fixed),
            )
        )
    source = options["rescore"]
    run = read_identity(source)
    scored_by = str(run["settings"].get("command"))
    if scored_by != command:
        raise RequestError(
            _(
                "--rescore {path}: outputs of `{command}`, expected a run of "
                "`{expected}`; what is there is compared by tuneyard eval compare {results}",
                path=source,
                command=shown_command(scored_by),
                expected=shown_command(command),
                results=shell(source),
            )
        )
    open_options = options.keys() - explicit.keys()
    kept: dict[str, Any] = {name: value for name, value in run["settings"].items() if name in open_options}
    kept["model"] = ""
    if "dataset_dir" in kept:
        kept["dataset_dir"] = Path(kept["dataset_dir"])
    if not (options["datasets"] or options["data"]):
        kept["datasets"] = tuple(run["sets"])
        try:
            find_datasets(kept["datasets"], (), kept.get("dataset_dir", options["dataset_dir"]))
        except RequestError as error:  # run.json does not contain the path of a file
            raise RequestError(
                _("--rescore {path}: {error}. If it scored a file, add --data FILE", path=source, error=error)
            ) from error
    return kept


def _explicit_options() -> dict[str, click.Parameter]:
    """Options that the command line gives to the current command, by Click's name."""
    context = click.get_current_context()
    explicit = {}
    for option in context.command.params:
        name = str(option.name)
        if context.get_parameter_source(name) is ParameterSource.COMMANDLINE:
            explicit[name] = option
    return explicit


def refuse_explicit(names: Iterable[str], reason: str) -> None:
    """Raise `RequestError` with `reason` if the command line gives one of these options."""
    explicit = _explicit_options()
    for name in names:
        if name in explicit:
            raise RequestError(_("{option}: {reason}", option=explicit[name].opts[0], reason=reason))


def resume_command(module: str) -> str:
    """Describe how a scoring run of `module` (such as `eval.nli`) is resumed after Ctrl-C."""
    if click.get_current_context().params.get("rescore"):
        return _("the same command starts again")
    command = command_line(module, ("--force", "--resume"))
    return _("resume it with: {command} --resume", command=command)


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
        type=click.Choice(["hf", "vllm", "openai"]),
        default="hf",
        show_default=True,
        help="vllm: vLLM in this process. openai: an OpenAI-compatible server.",
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
