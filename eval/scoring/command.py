"""Declare a scoring command: one function, from the options to an evaluation and its datasets.

The declaration lists the command's own options. An option with `cls=RescorableOption` also goes with
--rescore. Datasets, images and shots come from here. docs/extending.md adds a command in one file.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import click

from tuneyard.core.cli.main import TuneyardCommand, next_step
from tuneyard.core.errors import RequestError, resumed_by
from tuneyard.core.language.message import _
from tuneyard.eval.data.dataset import EvalDataset, read_datasets
from tuneyard.eval.data.shots import with_shots
from tuneyard.eval.models.generate import PRESET_TOKENS
from tuneyard.eval.runs.results import check_new
from tuneyard.eval.scoring.evaluation import Evaluation
from tuneyard.eval.scoring.options import (
    SETTINGS,
    Option,
    ScoringRequest,
    generate_options,
    model_options,
    number,
    repeat_option,
    rescoring,
    resume_command,
    run_options,
    sampling_options,
    seed_option,
    set_options,
    shots_options,
    take,
    with_options,
)

Declared = tuple[Evaluation, Sequence[EvalDataset]]
"""Result of a command's function: the evaluation, and the datasets to score. No model is loaded yet."""
CHOSEN_HERE = {
    "model": "the base of the adapters in saves/",
    "datasets": "held-out rows with labels",
    "out": "results/nli",
}
"""Defaults of a bare command, for its help."""
TakesImages = Callable[[Mapping[str, Any]], bool]
"""Decides by the command's own options whether rows with images can be scored."""


class ScoringCommand(TuneyardCommand):
    """A command that scores models.

    `make_evaluation` is the declared function, which only makes the evaluation.
    """

    make_evaluation: Callable[..., Declared]
    module: str
    """The command's module, e.g. `eval.nli`: its name in run.json."""
    reads_datasets: bool
    takes_images: TakesImages
    has_shots: bool
    longest: int
    """The default of --max-new-tokens, 0 if the command does not generate."""
    has_seed_of_draws: bool
    is_bare: bool
    """True if it completes missing options by what is in the current folder."""

    def prepare(self, options: Mapping[str, Any]) -> tuple[ScoringRequest, Declared]:
        """Read datasets, images and shots, and make the evaluation. `options` have Click's names."""
        from tuneyard.eval.scoring.images import with_images

        own_options = dict(options)
        request = take(own_options, self.module)
        if not request.max_new_tokens:
            request = replace(request, max_new_tokens=PRESET_TOKENS if request.preset else self.longest)
        if self.has_seed_of_draws and request.seed is not None and not request.draws:
            raise RequestError(
                _(
                    "--seed: nothing is sampled here: chosen labels and greedy answers are the same with "
                    "each seed; add --preset document, or leave --seed out"
                )
            )
        if request.repeat and not request.draws:
            raise RequestError(
                _(
                    "--repeat: nothing is sampled here: chosen labels and greedy answers are the same "
                    "each time; add --preset document, or leave --repeat out"
                )
            )
        shots, shots_from = 0, ()
        if self.has_shots:
            shots, shots_from = own_options.pop("shots"), own_options.pop("shots_from")
        if self.reads_datasets:
            images = self.takes_images({**own_options, "preset": request.preset})
            datasets = read_datasets(
                request.datasets, request.data, request.cluster, images=images, folder=request.dataset_dir
            )
            evaluation, chosen = self.make_evaluation(request, datasets, **own_options)
        else:
            evaluation, chosen = self.make_evaluation(request, **own_options)
        if any(row.images for dataset in chosen for row in dataset.conversations[: request.limit]):
            chosen = with_images(request, chosen, shots)
        if shots or shots_from:
            chosen = with_shots(
                chosen, shots, shots_from, evaluation.shot_answers, folder=request.dataset_dir
            )
        return request, (evaluation, chosen)

    def score(self, **options: Any) -> None:
        """Score every model on every dataset. Everything is read and checked before OUT is written."""
        from tuneyard.eval.scoring.candidates import open_models
        from tuneyard.eval.scoring.pipeline import carry_out, workers_of
        from tuneyard.eval.scoring.plan import plan_scoring
        from tuneyard.eval.scoring.repeats import check_draws, score_draws

        out = self._out(options)
        resume, force = options["resume"], options["force"]
        compared = {}
        if not options.get("rescore"):  # which takes over the settings of the outputs
            compared = {name: options[name] for name in SETTINGS if name != "cluster" and name in options}
            if options.get("mode") is not None:
                compared["mode"] = options["mode"]
        check_new(out, self.module, resume=resume, force=force, options=compared)
        check_draws(out, options.get("repeat"), self.module, resume=resume, force=force)
        if self.is_bare and not options["rescore"]:
            from tuneyard.eval.scoring.found_here import found_here

            options |= found_here(self.module, options, out)
        options["out"] = out
        with resumed_by(lambda: resume_command(self.module)):
            request, (evaluation, datasets) = self.prepare(options)
            with workers_of(request) as workers:
                opened = open_models(request, chooses=evaluation.chooses, workers=workers)
                if request.repeat:
                    next_step(*score_draws(request, evaluation, datasets, opened))
                else:
                    plan = plan_scoring(request, evaluation, datasets, opened)
                    next_step(*carry_out(plan))

    def _out(self, options: Mapping[str, Any]) -> Path:
        """The folder of the results. Kept outputs and servers do not tell the options of a bare command."""
        out: Path | None = options["out"]
        if not self.is_bare and out is not None:
            return out
        for name in ("model", "out"):
            is_needed = options["rescore"] or options["backend"] == "openai"
            if options[name] is None and is_needed:
                parameter = next(each for each in self.params if each.name == name)
                raise click.MissingParameter(ctx=click.get_current_context(), param=parameter)
        return out or Path("results") / str(self.name)


def scoring_command(
    name: str,
    *example_commands: str,
    options: Sequence[Option] = (),
    data: bool = True,
    images: TakesImages = lambda _options: False,
    shots: bool = False,
    rescored: bool = True,
    seeded: bool = True,
    sampled: bool = False,
    longest: int = 0,
    bare: bool = False,
) -> Callable[[Callable[..., Declared]], ScoringCommand]:
    """Declare a scoring command.

    The function gets the request, the datasets, and its own `options` by name. --help lists the
    `example_commands`. `longest` is the default of --max-new-tokens (0: the command does not generate).
    `data`: with --dataset, --data and --cluster. Without it the function reads the datasets itself.
    `images`: whether rows with images can be scored with these options. `shots`: with --shots.
    `rescored`: with --rescore. `seeded`: with --repeat, and a --seed that is for sampled answers alone.
    `sampled`: with --temperature and --top-p. `bare`: options that are missing are chosen from the current
    folder (eval/scoring/found_here.py).
    """
    declared = [*model_options]
    if rescored:
        declared.append(rescoring)
    if data:
        declared += set_options
    if shots:
        declared += shots_options
    declared += options
    if longest:
        about = "generate: the longest answer, in tokens."
        declared += [number("--max-new-tokens", show_default=str(longest), help=about), *generate_options]
    if sampled:
        declared += sampling_options
    has_seed_of_draws = longest > 0 and seeded
    if has_seed_of_draws:
        declared += [seed_option, repeat_option]
    declared += run_options

    def declare(make_evaluation: Callable[..., Declared]) -> ScoringCommand:
        make_command = click.command(name, cls=ScoringCommand, examples=example_commands)
        command = make_command(with_options(declared, make_evaluation))
        command.callback = command.score
        command.make_evaluation = make_evaluation
        command.module = f"eval.{name}"
        command.reads_datasets = data
        command.takes_images = images
        command.has_shots = shots
        command.longest = longest
        command.has_seed_of_draws = has_seed_of_draws
        command.is_bare = bare
        for parameter in command.params:
            if bare and isinstance(parameter, click.Option) and parameter.name in CHOSEN_HERE:
                parameter.required = False
                parameter.help = f"{parameter.help}  [{CHOSEN_HERE[parameter.name]}]"
        return command

    return declare
