"""A suite's file: the name of each step and its options, read as the step's own command reads them.

Everything that can be wrong with a step is found here, before a model is loaded.
"""

import importlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

from core.checkout import bundled
from core.documents import read_yaml
from core.errors import ContentError, RequestError, TuneyardError, nearest, show_value
from eval.datasets.dataset import EvalDataset
from eval.scoring.command import ScoringCommand
from eval.scoring.options import ScoringRequest
from eval.scoring.task import Task

Prepared = tuple[ScoringRequest, Task, Sequence[EvalDataset]]
ALONE = {
    "--rescore": "prompts models:",
    "--shots": "adds no model:",
    "--think": "prompts without it;",  # it changes how a model is opened, and some commands refuse it
}
COMMANDS = ("nli", "qa", "text", "dialogue", "cmmlu", "code", "defect", "tools")


@dataclass(frozen=True, slots=True)
class Step:
    """A step's name, its place in the file, its command and the options that are its own."""

    name: str
    place: str
    command: ScoringCommand
    options: Mapping[str, Any]

    def prepare(self, shared: Mapping[str, Any]) -> Prepared:
        """Return what is asked, with the suite's options and this step's; errors name the place."""
        limit = shared["limit"] or self.options["limit"]
        given = {**self.options, **shared, "limit": limit, "out": shared["out"] / self.name}
        try:
            return self.command.prepare(given)
        except TuneyardError as error:
            raise type(error)(
                f"{self.place}: {error}; change the step, or leave it out: --skip {self.name}"
            ) from error


def read_steps(path: Path, shared: Iterable[str], skipped: Iterable[str]) -> list[Step]:
    """Return the steps of a suite's file in their order, without those `skipped`.

    `shared` names the options (as Click has them) that the suite itself takes for all steps.
    `ContentError` names every option, command and value that is wrong; `RequestError` an unknown step.
    """
    path = bundled(path)
    read = read_yaml(path, "suite")
    if not isinstance(read.value, dict) or not all(isinstance(name, str) for name in read.value):
        raise ContentError(
            f"{path}: found {show_value(read.value)}, expected the name of each step above its options"
        )
    for name in skipped:
        if name not in read.value:
            raise RequestError(f"--skip {name}: {path} has the steps {', '.join(read.value)}")
    steps: list[Step] = []
    wrong: list[str] = []
    for name, options in read.value.items():
        place = f"{path}:{read.lines[name]}: {name}"
        try:
            step = _step(name, place, options, path.parent, frozenset(shared))
            steps += [step] if name not in skipped else []
        except ContentError as error:
            wrong.append(str(error))
    if wrong or not steps:
        raise ContentError("\n".join(wrong) or f"{path}: no step is left")
    return steps


def _step(name: str, place: str, options: object, beside: Path, shared: frozenset[str]) -> Step:
    if Path(name).name != name or name.startswith("."):
        raise ContentError(f"{place}: expected a name that can name a folder")
    if not isinstance(options, dict) or options.get("command") not in COMMANDS:
        found = show_value(options.get("command") if isinstance(options, dict) else options)
        raise ContentError(f"{place}: command: found {found}, expected one of {', '.join(COMMANDS)}")
    command: ScoringCommand = importlib.import_module(f"eval.{options['command']}").cli
    try:
        arguments = list(_arguments(command, options, beside, shared))
        # what every command requires stands on the suite's command line
        context = command.make_context(name, ["--model", "-", "--out", "-", *arguments])
    except (click.UsageError, ContentError) as error:
        told = error.format_message() if isinstance(error, click.UsageError) else error
        raise ContentError(f"{place}: {told}") from error
    return Step(name, place, command, context.params)


def _arguments(
    command: click.Command, options: Mapping[object, object], beside: Path, shared: frozenset[str]
) -> Iterator[str]:
    """Yield a step's options as a command line has them; `data` may lie beside the suite's file."""
    known = {name: option for option in command.params for name in (*option.opts, *option.secondary_opts)}
    for key, value in options.items():
        name = f"--{str(key).replace('_', '-')}"
        option = known.get(name)
        if key == "command":
            continue
        if option is None:
            hint = nearest(name, known) or f"see python -m eval.{options['command']} --help"
            raise ContentError(f"{key}: {options['command']} has no such option; {hint}")
        if name in ALONE and (name != "--shots" or "--shots-from" in known):
            raise ContentError(f"{name[2:]}: a suite {ALONE[name]} run eval.{options['command']} by itself")
        if option.name in shared:
            raise ContentError(f"{key}: the same for all steps: give it on the command line")
        if getattr(option, "is_flag", False):
            if not isinstance(value, bool):
                raise ContentError(f"{key}: found {show_value(value)}, expected true or false")
            yield from option.opts[:1] if value else option.secondary_opts[:1]
            continue
        for one in value if isinstance(value, list) else [value]:
            if isinstance(one, bool) or not isinstance(one, str | int | float):
                raise ContentError(f"{key}: found {show_value(one)}, expected a text or a number")
            there = name == "--data" and (beside / str(one)).exists()
            yield f"{name}={beside / str(one) if there else one}"
