"""Declare a scoring command: one function, from the options to an evaluation and its datasets.

The declaration lists the command's own options. An option with `cls=RescorableOption` also goes with
--rescore. Datasets, images and shots come from here. docs/extending.md adds a command in one file.
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import click

from tuneyard.core.cli.main import (
    CommandLine,
    TuneyardCommand,
    explicit_options,
    next_step,
    typed_command,
    up_to_date,
)
from tuneyard.core.errors import RequestError, resumed_by
from tuneyard.core.execution.state import CURRENT, NEW, Input, State
from tuneyard.core.language.message import _, joined
from tuneyard.eval.data.dataset import EvalDataset, read_datasets
from tuneyard.eval.data.shots import with_shots
from tuneyard.eval.models.backends import backend_kind
from tuneyard.eval.models.generate import PRESET_TOKENS
from tuneyard.eval.runs.results import RUN, CommandResult, check_folder, read_run
from tuneyard.eval.scoring.evaluation import Evaluation
from tuneyard.eval.scoring.options import (
    Option,
    RescorableOption,
    generate_options,
    model_options,
    number,
    repeat_option,
    rescoring,
    run_options,
    seed_option,
    set_options,
    shots_options,
    with_options,
)
from tuneyard.eval.scoring.request import (
    OptionValues,
    ScoringRequest,
    request_of,
    resume_hint,
    resumed,
    with_kept_options,
)

Declared = tuple[Evaluation, Sequence[EvalDataset]]
"""Result of a command's function: the evaluation, and the datasets to score. No model is loaded yet."""
CHOSEN_HERE = {
    "model": "the base of the adapters in saves/",
    "datasets": "held-out rows with labels",
    "out": "results/nli",
}
"""Defaults of a bare command, for its help."""
TakesImages = Callable[[OptionValues], bool]
"""Decides by the command's own options whether rows with images can be scored."""
SHOTS = ("shots", "shots_from")


class ScoringCommand(TuneyardCommand):
    """A command that scores models.

    `make_evaluation` is the declared function, which only makes the evaluation.
    """

    make_evaluation: Callable[..., Declared]
    module: str
    """The command's module, e.g. `eval.nli`: its name in run.json."""
    without: Collection[str]
    """Options that the other scoring commands have, such as --rescore."""
    takes_images: TakesImages
    has_shots: bool
    longest: int
    """The default of --max-new-tokens, 0 if the command does not generate."""
    is_bare: bool
    """True if it completes missing options by what is in the current folder."""

    def request(
        self,
        options: OptionValues,
        explicit: Mapping[str, str],
        command_line: CommandLine,
        by: str = "",
    ) -> ScoringRequest:
        """Make a request of all options by name, of which the user gave the `explicit` ones.

        With --rescore, options that the user leaves open come from the kept run. `RequestError` if options
        contradict one another.
        """
        if options.get("rescore"):
            rescorable = [str(each.name) for each in self.params if isinstance(each, RescorableOption)]
            options = with_kept_options(options, explicit, rescorable, self.module)
        request = request_of(options, explicit, command_line, self.module, by)
        if not request.max_new_tokens:
            request = replace(request, max_new_tokens=PRESET_TOKENS if request.preset else self.longest)
        is_seed_of_draws = self.longest > 0 and "--seed" not in self.without
        if is_seed_of_draws and request.seed is not None and not request.draws:
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
        return request

    def prepare(self, request: ScoringRequest) -> Declared:
        """Read datasets, images and shots, and make the evaluation."""
        from tuneyard.eval.scoring.images import with_images

        options = dict(request.own)
        shots, shots_from = 0, ()
        if self.has_shots:
            shots, shots_from = (options.pop(name) for name in SHOTS)
        if "--dataset" in self.without:
            evaluation, chosen = self.make_evaluation(request, **options)
        else:
            images = self.takes_images({**options, "preset": request.preset})
            datasets = read_datasets(
                request.datasets, request.data, request.cluster, images=images, folder=request.dataset_dir
            )
            evaluation, chosen = self.make_evaluation(request, datasets, **options)
        if any(row.images for dataset in chosen for row in dataset.conversations[: request.limit]):
            chosen = with_images(request, chosen, shots)
        if shots or shots_from:
            chosen = with_shots(
                chosen, shots, shots_from, evaluation.shot_answers, folder=request.dataset_dir
            )
        return evaluation, chosen

    def state(self, request: ScoringRequest) -> State:
        """How far the results of a request are. No model is loaded, and nothing is written.

        Raises what scoring raises before it loads a model.
        """
        from tuneyard.eval.scoring.state import scoring_inputs

        self._check_out(request)
        if not (request.out / RUN).is_file():
            return NEW
        evaluation, datasets = self.prepare(request)
        inputs = scoring_inputs(request, evaluation, datasets, self.flags)
        return _state(request, evaluation, inputs)

    def score(self, request: ScoringRequest) -> CommandResult:
        """Score every model on every dataset. Everything is read and checked before OUT is written.

        `RequestError` for an OUT that is unfinished or stale, unless `request` resumes or replaces it.
        """
        from tuneyard.eval.scoring.candidates import open_models
        from tuneyard.eval.scoring.pipeline import carry_out, workers_of
        from tuneyard.eval.scoring.plan import plan_scoring
        from tuneyard.eval.scoring.repeats import score_draws
        from tuneyard.eval.scoring.state import refuse_existing, scoring_inputs

        self._check_out(request)
        evaluation, datasets = self.prepare(request)
        workers_context = workers_of(request)
        inputs = scoring_inputs(request, evaluation, datasets, self.flags)
        state = _state(request, evaluation, inputs)
        if state == CURRENT and not request.force:
            return _current(request, evaluation)
        refuse_existing(request, state, inputs)
        request = resumed(request)
        with workers_context as workers:
            opened = open_models(request, chooses=evaluation.chooses, workers=workers)
            if request.repeat:
                return CommandResult(*score_draws(request, evaluation, datasets, opened, inputs))
            return CommandResult(*carry_out(plan_scoring(request, evaluation, datasets, opened, inputs)))

    @property
    def flags(self) -> dict[str, str]:
        """The flag of each option by its name."""
        return {str(parameter.name): parameter.opts[0] for parameter in self.params}

    def _check_out(self, request: ScoringRequest) -> None:
        """`RequestError` for an OUT of another command, or with draws where the request has none."""
        from tuneyard.eval.scoring.repeats import check_draws

        check_folder(request.out, self.module, resume=request.resume, force=request.force)
        check_draws(request.out, request.repeat, self.module, resume=request.resume, force=request.force)

    def main_of_click(self, **options: Any) -> None:
        """Score what the command line asks for, and print the next step."""
        command_line = typed_command(self.module)
        out = self._out(options)
        check_folder(out, self.module, resume=options["resume"], force=options["force"])
        if self.is_bare and not options["rescore"]:
            from tuneyard.eval.scoring.found_here import found_here

            options |= found_here(command_line, options, out)
        options["out"] = out
        explicit = explicit_options(click.get_current_context())
        with resumed_by(lambda: resume_hint(command_line, options.get("rescore"))):
            scored = self.score(self.request(options, explicit, command_line))
        end_scoring(scored)

    def _out(self, options: OptionValues) -> Path:
        """The folder of the results. Kept outputs and servers do not tell the options of a bare command."""
        out: Path | None = options["out"]
        if not self.is_bare and out is not None:
            return out
        for name in ("model", "out"):
            is_needed = options["rescore"] or backend_kind(options["backend"]).is_server
            if options[name] is None and is_needed:
                parameter = next(each for each in self.params if each.name == name)
                raise click.MissingParameter(ctx=click.get_current_context(), param=parameter)
        return out or Path("results") / str(self.name)


def _state(request: ScoringRequest, evaluation: Evaluation, inputs: Mapping[str, Input]) -> State:
    from tuneyard.eval.scoring.repeats import draws_state
    from tuneyard.eval.scoring.state import run_state

    if request.repeat:
        return draws_state(request, inputs, evaluation.for_people)
    return run_state(request, inputs, evaluation.for_people)


def _current(request: ScoringRequest, evaluation: Evaluation) -> CommandResult:
    """The result of a request that is there already."""
    from tuneyard.eval.scoring.repeats import TABLE, draw_folders

    folder = request.out
    if request.repeat:
        folder = draw_folders(folder, request.repeat)[0]
    run = read_run(folder)
    place, words = evaluation.next_step(folder, list(run["models"]), list(run["datasets"]))
    if request.repeat:
        place = request.out / TABLE
    return CommandResult(place, words, is_current=True)


def end_scoring(scored: CommandResult) -> None:
    """End a scoring command: print where its result is, and the next command."""
    if scored.is_current:
        up_to_date(scored.place, scored.next_command)
    else:
        next_step(scored.place, scored.next_command)


def scoring_command(
    name: str,
    *example_commands: str,
    options: Sequence[Option] = (),
    without: Collection[str] = (),
    longest: int = 0,
    shots: bool = False,
    images: TakesImages = lambda _options: False,
    bare: bool = False,
) -> Callable[[Callable[..., Declared]], ScoringCommand]:
    """Declare a scoring command.

    The function gets the request, the datasets, and its own `options` by name. --help lists the
    `example_commands`. `without`: options that the other scoring commands have and this one lacks, or has in
    its own way; without `--dataset` the function reads the datasets itself. `longest` is the default of
    --max-new-tokens (0: the command does not generate). `shots`: with --shots. `images`: whether rows with
    images can be scored with these options. `bare`: options that are missing are chosen from the current
    folder (eval/scoring/found_here.py).
    """
    before = [*model_options, rescoring, *set_options]
    if shots:
        before += shots_options
    after: list[Option] = []
    if longest:
        about = "generate: the longest answer, in tokens."
        after += [number("--max-new-tokens", show_default=str(longest), help=about), *generate_options]
        after += [seed_option, repeat_option]
    after += run_options

    def declare(make_evaluation: Callable[..., Declared]) -> ScoringCommand:
        shared_before, shared_after = _parameters(before), _parameters(after)
        unknown = set(without) - {each.opts[0] for each in [*shared_before, *shared_after]}
        if unknown:
            raise ValueError(_("without: {names}: no scoring command has it", names=joined(unknown)))
        parameters = [
            *(each for each in shared_before if each.opts[0] not in without),
            *_parameters(options),
            *(each for each in shared_after if each.opts[0] not in without),
        ]
        make_command = click.command(name, cls=ScoringCommand, params=parameters, examples=example_commands)
        command = make_command(make_evaluation)
        command.callback = command.main_of_click
        command.make_evaluation = make_evaluation
        command.module = f"eval.{name}"
        command.without = without
        command.takes_images = images
        command.has_shots = shots
        command.longest = longest
        command.is_bare = bare
        for parameter in command.params:
            if bare and isinstance(parameter, click.Option) and parameter.name in CHOSEN_HERE:
                parameter.required = False
                parameter.help = f"{parameter.help}  [{CHOSEN_HERE[parameter.name]}]"
        return command

    return declare


def _parameters(options: Sequence[Option]) -> list[click.Parameter]:
    """Click's parameters of options, in their order."""

    def command() -> None:
        """Carry the options."""

    return click.command()(with_options(options, command)).params
