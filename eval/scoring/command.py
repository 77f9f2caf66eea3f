"""How a scoring command is declared: one function, from the request to what is asked and of what."""

import inspect
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, cast

import click

from tuneyard.core.cli import examples
from tuneyard.core.errors import CLI, resumed_by
from tuneyard.eval.datasets.dataset import EvalDataset
from tuneyard.eval.read.results import check_new
from tuneyard.eval.scoring.candidates import open_models
from tuneyard.eval.scoring.options import (
    Option,
    ScoringRequest,
    generate_options,
    model_options,
    repeats_option,
    rescoring,
    resume_command,
    run_options,
    set_options,
    take,
    together,
)
from tuneyard.eval.scoring.pipeline import rescore, score_opened
from tuneyard.eval.scoring.task import Task

Asked = tuple[Task, Sequence[EvalDataset]]
"""What a command makes of its options before any model is loaded: what it does, and with which datasets."""
Prepared = tuple[ScoringRequest, Task, Sequence[EvalDataset]]


class ScoringCommand(click.Command):
    """Has its function make task and datasets of a `ScoringRequest` and its own options, and scores them."""

    @property
    def module(self) -> str:
        """The module of the command, e.g. `eval.nli`, also if Python runs it as `__main__`."""
        source = inspect.getfile(cast(Callable[..., Asked], self.callback))
        return f"eval.{Path(source).stem}"

    def prepare(self, given: dict[str, Any]) -> Prepared:
        """Return the request, the task and the datasets that options (by Click's names) ask for."""
        own = dict(given)
        request = take(own)
        ask = cast(Callable[..., Asked], self.callback)
        return request, *ask(request, **own)

    def invoke(self, ctx: click.Context) -> None:
        """Score every model on every dataset; what can be refused is refused before anything is written."""
        check_new(ctx.params["out"], self.module, resume=ctx.params["resume"], force=ctx.params["force"])
        with resumed_by(lambda: resume_command(self.module)):
            request, task, sets = self.prepare(ctx.params)
            if request.rescore:
                rescore(request.rescore, request, task, sets)
            else:
                score_opened(request, task, sets, open_models(request))


def scoring_command(
    *shown: str,
    own: Sequence[Option] = (),
    data: bool = True,
    rescored: bool = True,
    repeated: bool = True,
    longest: int = 0,
) -> Callable[[Callable[..., Asked]], ScoringCommand]:
    """Return what declares a command: examples, `own` options, answers of `longest` tokens (0: of none).

    `data`, `rescored` and `repeated` are false for a command without these options.
    """
    options: list[Option] = [model_options]
    options += [rescoring] if rescored else []
    options += [set_options] if data else []
    options += own
    if longest:
        options.append(generate_options(longest))
    if longest and repeated:
        options.append(repeats_option)
    declare = click.command(cls=ScoringCommand, context_settings=CLI, epilog=examples(*shown))
    return lambda ask: declare(together(*options, run_options)(ask))
