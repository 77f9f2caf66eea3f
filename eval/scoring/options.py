"""The options that the scoring commands share, and what was given for them as one ScoringRequest."""

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import click
from click.core import ParameterSource

from tuneyard.core.cli import command_line
from tuneyard.core.errors import RequestError
from tuneyard.eval.backends.generate import PRESET_TOKENS, PRESETS
from tuneyard.eval.read.results import MERGED, UNMERGED, read_identity

Option = Callable[[Callable[..., Any]], Callable[..., Any]]
"""Gives a command an option, or several."""
RESCORED = frozenset(
    {"rescore", "out", "force", "datasets", "data", "cluster", "parser", "choices", "count"}
    | {"embedding_model", "rouge", "tokenizer", "run_code"}
)
"""The options that --rescore goes with: where outputs are, and what they are taken for."""


class Finite(click.FloatRange):
    """A range of numbers without nan and inf, which Click's own lets pass: nothing is greater than nan."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """Return the number; a usage error where it is none, not finite or outside the range."""
        number = float(super().convert(value, param, ctx))
        if not math.isfinite(number):
            self.fail(f"{value} is no finite number.", param, ctx)
        return number


class UnlessRescored(click.Option):
    """An option that is required, but not beside --rescore."""

    def process_value(self, ctx: click.Context, value: Any) -> Any:
        """Return the value; a usage error where there is none and the model is needed."""
        if isinstance(ctx.params.get("rescore"), Path) and not isinstance(value, str):
            return None
        return super().process_value(ctx, value)


@dataclass(frozen=True, slots=True)
class ScoringRequest:
    """What a command line asks for: a field for each option that the scoring commands share."""

    model: str
    out: Path
    adapters: tuple[str, ...] = ()
    datasets: tuple[str, ...] = ()
    data: tuple[Path, ...] = ()
    cluster: str | None = None
    backend: str = "hf"
    url: str | None = None
    template: str | None = None
    bos: bool = False
    apply: str = UNMERGED
    dtype: str | None = None
    quantize: int | None = None
    batch_tokens: int | None = None
    max_new_tokens: int = 0
    think: bool = False
    preset: str | None = None
    repeats: int = 1
    limit: int | None = None
    no_base: bool = False
    same_base: bool = False
    resume: bool = False
    force: bool = False
    rescore: Path | None = None
    by: str = ""
    """The module that was called, where it is another than the task's: `eval.suite`."""


def take(given: dict[str, Any]) -> ScoringRequest:
    """Take the shared options of `given`; --rescore: as the run had them; `RequestError` for conflicts."""
    if given.get("rescore"):
        given.update(_kept_options(given))
    request = ScoringRequest(**{f.name: given.pop(f.name) for f in fields(ScoringRequest) if f.name in given})
    if request.preset and request.backend != "hf":
        raise RequestError(f"--preset reads generation_config.json: leave out --backend {request.backend}")
    if request.repeats > 1 and not request.preset:
        raise RequestError(
            "--repeats: nothing is sampled here: chosen labels and greedy answers are the same each time; "
            "add --preset document (in nli with --mode generate), or leave --repeats out"
        )
    return request


def _kept_options(given: dict[str, Any]) -> dict[str, Any]:
    """The options of the run to score again, for those that the command line leaves open."""
    said = _explicit_flags()
    if fixed := [flag for name, flag in said.items() if name not in RESCORED]:
        raise RequestError(
            f"--rescore keeps the model's outputs: {', '.join(fixed)} would change them or has no effect; "
            "leave it out, or score without --rescore"
        )
    run = read_identity(given["rescore"])
    kept = {name: value for name, value in run["settings"].items() if name in given and name not in said}
    named = given["datasets"] or given["data"]
    return {**kept, "model": "", **({} if named else {"datasets": tuple(run["sets"])})}


def _explicit_flags() -> dict[str, str]:
    """Return the flags that the command line gives to the current command, by the name of their option."""
    context = click.get_current_context()
    return {
        str(option.name): option.opts[0]
        for option in context.command.params
        if context.get_parameter_source(str(option.name)) is ParameterSource.COMMANDLINE
    }


def refuse_explicit(names: Iterable[str], why: str) -> None:
    """Raise `RequestError` with `why` if the command line gives one of these options."""
    flags = _explicit_flags()
    for name in names:
        if name in flags:
            raise RequestError(f"{flags[name]}: {why}")


def resume_command(module: str) -> str:
    """Say how a scoring run of `module` (such as `eval.nli`) is resumed after Ctrl-C."""
    if click.get_current_context().params.get("rescore"):
        return "the same command starts again"
    return f"resume it with: {command_line(module, ('--force', '--resume'))} --resume"


def together(*options: Option) -> Option:
    """Return what gives a command all of these options, in their order."""

    def declare(command: Callable[..., Any]) -> Callable[..., Any]:
        for option in reversed(options):
            command = option(command)
        return command

    return declare


def number(flag: str, told: str, *, least: int = 1, default: int | None = None) -> Option:
    """Return an option of a whole number, whose default is shown unless it is 0."""
    shown = bool(default)
    return click.option(
        flag, type=click.IntRange(least), metavar="N", default=default, show_default=shown, help=told
    )


def choice(flag: str, values: Iterable[str], told: str) -> Option:
    """Return an option with the first of its values as the default."""
    known = list(values)
    return click.option(flag, type=click.Choice(known), default=known[0], show_default=True, help=told)


PATH = click.Path(path_type=Path)
rescoring = click.option(
    "--rescore",
    is_eager=True,  # before --model, which is not needed then
    type=PATH,
    metavar="RESULTS",
    help="Score the outputs of a run again, without the model, as the other options say.",
)
same_base = click.option(
    "--same-base", is_flag=True, help="The base that an adapter names and --model are the same model."
)
dtype = click.option(
    "--dtype", type=click.Choice(["fp32", "bf16", "fp16"]), help="[fp32 on CPU, bf16 on GPU]"
)
loading_options = together(
    same_base,
    click.option(
        "--template", metavar="NAME", help="Prompt with LLaMA-Factory's template, not the saved one."
    ),
    click.option("--bos", is_flag=True, help="Without a chat template: begin the prompt with BOS."),
    dtype,
    click.option(
        "--quantize",
        type=click.Choice(["4", "8"]),
        callback=lambda _, __, bits: bits and int(bits),
        help="Load the weights as NF4 or 8-bit integers.",
    ),
)
model_options = together(
    click.option(
        "--model", cls=UnlessRescored, required=True, metavar="DIR|ID", help="Model folder or hub id."
    ),
    click.option(
        "--adapter",
        "adapters",
        multiple=True,
        metavar="NAME[=DIR]",
        help="Score this adapter too; NAME alone means saves/NAME. Repeatable.",
    ),
    click.option("--no-base", is_flag=True, help="Do not score the base itself."),
    choice(
        "--backend",
        ["hf", "vllm", "openai"],
        "openai: an OpenAI-compatible server. It and vllm only generate.",
    ),
    click.option("--url", metavar="URL", help="openai: the server, e.g. http://localhost:8000/v1."),
    loading_options,
    click.option(
        "--apply",
        type=click.Choice([UNMERGED, MERGED]),
        default=UNMERGED,
        show_default=True,
        help="Adapters exact beside the base, or added into its weights and rounded.",
    ),
    number("--batch-tokens", "[2048 on CPU, 32768 on GPU]"),
)
data_options = together(
    click.option(
        "--dataset", "datasets", multiple=True, metavar="NAME", help="A registered dataset. Repeatable."
    ),
    click.option(
        "--data",
        multiple=True,
        type=PATH,
        metavar="FILE",
        help="A JSON, JSON Lines or (prompts alone) .txt file.",
    ),
)
set_options = together(
    data_options,
    click.option(
        "--cluster",
        metavar="COLUMN",
        help="Examples that share its value are not independent; `none`: all are. [the manifest's]",
    ),
)
shots_options = together(
    number(
        "--shots",
        "Score the base also after N examples of the training split, as `base (N shots)`.",
        least=0,
        default=0,
    ),
    click.option(
        "--shots-from",
        multiple=True,
        metavar="[SET=]NAME",
        help="The training split, a registered dataset or a file. [SET's name with train] Repeatable.",
    ),
)
run_options = together(
    click.option("--out", required=True, type=PATH, help="Folder of the results."),
    number("--limit", "The first N examples of each dataset."),
    click.option("--resume", is_flag=True, help="Resume the run in OUT; refused if anything changed."),
    click.option("--force", is_flag=True, help="Start this command's run in OUT anew."),
)


repeats_option = number(
    "--repeats",
    "--preset: answer N times, with other seeds each time; report mean, spread and interval.",
    default=1,
)


def generate_options(max_new_tokens: int) -> Option:
    """Return --max-new-tokens, with the command's default, --preset and --think."""

    def longest() -> int:
        preset = click.get_current_context().params.get("preset")
        return PRESET_TOKENS if preset in PRESETS else max_new_tokens

    return together(
        click.option(
            "--max-new-tokens",
            type=click.IntRange(1),
            metavar="N",
            default=longest,
            show_default=str(max_new_tokens),
            help="generate: the longest answer.",
        ),
        click.option(
            "--preset",
            type=click.Choice(list(PRESETS)),
            is_eager=True,  # before --max-new-tokens, whose default depends on it
            help="generate: sample as the model's generation_config says, up to 512 tokens.",
        ),
        click.option("--think", is_flag=True, help="generate: let a model think before it answers."),
    )
