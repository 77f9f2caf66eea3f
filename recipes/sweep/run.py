"""Checking, training and scoring the points of a grid."""

import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Generator, Iterator, Sequence
from contextlib import closing
from pathlib import Path

from tuneyard.core.errors import ContentError, RequestError
from tuneyard.core.execution import Observer, WorkItem, WorkResult
from tuneyard.core.execution.family import start_family
from tuneyard.core.execution.processes import end_process
from tuneyard.core.execution.state import CURRENT, UNFINISHED, State, compare_inputs
from tuneyard.core.files import HeldError, read_object, reserved, write_json
from tuneyard.core.files.bounded_reading import read_end
from tuneyard.core.files.links import refuse_written_link
from tuneyard.core.files.temporaries import locked
from tuneyard.core.language.message import _, joined, marked
from tuneyard.core.language.messages import say
from tuneyard.core.text.secrets import public_text, public_words
from tuneyard.core.training.sweeps import RESULTS
from tuneyard.core.training.training_run import TRAINING
from tuneyard.recipes.checking.checked import ask_check, not_checked, quick_check
from tuneyard.recipes.llamafactory.launch import environment, users_environment
from tuneyard.recipes.machine.hardware import Machine
from tuneyard.recipes.output_dir.checkpoints import set_aside
from tuneyard.recipes.recipe import Recipe
from tuneyard.recipes.recipe.model_source import require_model
from tuneyard.recipes.rules.setting_rules import evaluated, measured
from tuneyard.recipes.sweep.slots import SweepPlace
from tuneyard.recipes.training.train import TrainRequest, recipe_state, train

SCORED = "judged.json"  # the command that scored a run, written when all its results are there
SCORE_LOG = "score.log"
# A word of a scoring command with another placeholder. A word with spaces is code, which has braces.
UNKNOWN_PLACEHOLDER = re.compile(r"\S*?(?<!\$)\{(?!adapter\}|results\})\w+\}\S*")
NOT_JUDGED = {"output_dir", "seed", "learning_rate"}  # settings that no answer of LLaMA-Factory depends on


def check_first(
    recipes: Sequence[Recipe],
    metric: str | None,
    target: Machine,
    quick: bool = False,
    *,
    runs_model_code: bool = False,
) -> None:
    """Refuse a grid if one of its runs cannot be trained or scored. Finished runs are not checked again.

    LLaMA-Factory checks each run that differs in more than rates and seeds, unless the check is `quick`. It
    remembers rows. The checks that it could not make are printed once. `runs_model_code`: it may run the
    model's Python files.
    """
    judged: set[str] = set()
    unchecked: dict[str, None] = {}
    for recipe in recipes:
        if is_trained(recipe, target):
            continue
        checked = quick_check(recipe, target)
        problems = checked.refuse()
        if metric and metric not in measured(recipe):
            template = marked(
                "{path}: a run of it does not write {metric}, only {names}; or let a command score it: --eval"
            )
            if not evaluated(recipe):
                template = marked(
                    "{path}: a run of it does not write {metric}, only {names}; hold rows out: val_size=0.1 "
                    "eval_strategy=epoch; or let a command score it: --eval"
                )
            raise ContentError(_(template, path=recipe.path, metric=metric, names=joined(measured(recipe))))
        question = str({key: value for key, value in recipe.settings.items() if key not in NOT_JUDGED})
        if not quick and question not in judged:
            judged.add(question)
            require_model(recipe)
            answered = ask_check(checked, None, runs_model_code=runs_model_code)
            problems = [*problems, *answered.refuse()]
            unchecked |= dict.fromkeys(not_checked(answered, recipe.text("model_name_or_path")))
        never = [problem for problem in problems if problem.field == "eval_steps"]
        if metric in evaluated(recipe) and never:
            raise ContentError(
                _("{problem}, so that no run has its {metric}", problem=never[0].line(), metric=metric)
            )
    for line in unchecked:
        say(_("not checked: {what}", what=line), to_stderr=True)


def is_trained(recipe: Recipe, target: Machine) -> bool:
    """True if the training of a point is finished, with its inputs and on as many processes."""
    if not (recipe.output_dir / TRAINING).is_file():  # and the model is not hashed
        return False
    return recipe_state(recipe, target) == CURRENT


def point_state(recipe: Recipe, evaluation: str | None, target: Machine | None) -> State:
    """How far a point is: trained on a machine (None: any), and scored by the command if there is one."""
    state = recipe_state(recipe, target)
    if state != CURRENT or evaluation is None or is_scored(recipe.output_dir, evaluation):
        return state
    scored = recipe.output_dir / SCORED
    if not scored.is_file():
        return UNFINISHED
    return compare_inputs(
        {"--eval": str(read_object(scored).get("command"))}, {"--eval": public_text(evaluation)}
    )


def finish_points(
    recipes: Sequence[Recipe], evaluation: str | None, place: SweepPlace
) -> Generator[tuple[Recipe, str]]:
    """Bring checked points to finished, scored ones, side by side where they fit; yield each with its error.

    A point that fails does not end the others.
    """
    unfinished = []
    for recipe in recipes:
        if is_finished(recipe, evaluation, place.target):
            say(_("{path}: up to date", path=recipe.output_dir))
            yield recipe, ""
        else:
            unfinished.append(recipe)
    started: list[Recipe] = []

    def items() -> Iterator[WorkItem]:
        for recipe in unfinished:
            started.append(recipe)
            arguments = (recipe, evaluation, not place.has_terminal)
            yield WorkItem(recipe.output_dir.name, finish_when_free, arguments)

    progress = SweepProgress(len(recipes), len(recipes) - len(unfinished))
    work_results = place.executor.map(items(), resources=place.resources, observer=progress)
    with closing(work_results):
        for number, work_result in enumerate(work_results):
            error = work_result.error
            yield started[number], error.message if error else ""


def finish_when_free(recipe: Recipe, evaluation: str | None, has_log: bool) -> None:
    """As `finish`, when no other process works on the point: a listed command, or the training of a lost
    process, which takes a moment to end."""
    while True:
        try:
            return finish(recipe, evaluation, has_log)
        except HeldError:
            say(
                _("waiting for {name}: another process works on it", name=recipe.output_dir.name),
                to_stderr=True,
            )
            with locked(recipe.output_dir):
                pass  # it has ended


def finish(recipe: Recipe, evaluation: str | None, has_log: bool) -> None:
    """Train a point that LLaMA-Factory has checked, and score it with a command if there is one.

    `has_log`: the output of the command is for score.log, and not for the terminal.
    """
    train(TrainRequest(recipe, is_checked=True))
    if evaluation is not None:
        evaluate(recipe.output_dir, evaluation, has_log)


class SweepProgress(Observer):
    """Prints a line when a point starts and when it has ended, and the points' output, each line once."""

    def __init__(self, total: int, finished: int) -> None:
        self._total, self._ended = total, finished
        self._printed: set[str] = set()

    def started(self, name: str, slot: str) -> None:
        """Print the name of a point with its slot."""
        if slot:
            say(_("{name}: started on {slot}", name=name, slot=slot), to_stderr=True)
        else:
            say(f"{self._ended + 1}/{self._total} {name}", to_stderr=True)

    def ended(self, work_result: WorkResult) -> None:
        """Print the lines of a point's output that are new, and how many points have ended."""
        self._ended += 1
        for line in work_result.output.splitlines():
            if line not in self._printed:
                say(line)
            self._printed.add(line)
        template = marked("{number}/{total} {name} finished")
        if work_result.error:
            template = marked("{number}/{total} {name} failed: {reason}")
        line = _(
            template,
            number=self._ended,
            total=self._total,
            name=work_result.name,
            reason=work_result.error,
        )
        say(line, to_stderr=True)

    def lost(self, name: str, reason: str) -> None:
        """Print that a point starts again."""
        say(_("{name}: its process {reason}; it starts again", name=name, reason=reason), to_stderr=True)


def scoring_words(evaluation: str, folder: Path) -> list[str]:
    """Words of the command that scores a run.

    `RequestError` if it has an open quote, no program, no placeholder or an unknown one.
    """
    try:
        words = shlex.split(evaluation)
    except ValueError as error:
        raise RequestError(
            _("--eval {command!r}: {reason}; close the quote", command=evaluation, reason=error)
        ) from error
    if not words:
        raise RequestError(_("--eval: expected a command, as in 'tuneyard eval nli … --adapter {{adapter}}'"))
    if words[0] == "python":
        words[0] = sys.executable
    elif shutil.which(words[0], path=environment()["PATH"]) is None:
        raise RequestError(
            _(
                "--eval: the program {program!r} was not found; begin with one, as in 'tuneyard eval nli …'",
                program=words[0],
            )
        )
    for word in words:
        if UNKNOWN_PLACEHOLDER.fullmatch(word):
            raise RequestError(_("--eval {word}: known are {{adapter}} and {{results}}", word=word))
    results = str(folder / RESULTS)
    filled = [word.replace("{adapter}", str(folder)).replace("{results}", results) for word in words]
    if filled == words:
        raise RequestError(
            _("--eval names neither {{adapter}} nor {{results}}: it would score no run of the sweep")
        )
    return filled


def is_scored(folder: Path, evaluation: str) -> bool:
    """True if this command has scored a run to its end."""
    if not (folder / SCORED).is_file():
        return False
    return read_object(folder / SCORED).get("command") == public_text(evaluation)


def evaluate(folder: Path, evaluation: str, has_log: bool) -> None:
    """Run the command that scores a run, unless it has scored it already.

    It ends with this process. Results of another command or an interrupted one are set aside.
    """
    words = scoring_words(evaluation, folder)
    with reserved(folder) as lock:
        if is_scored(folder, evaluation):
            return
        (folder / SCORED).unlink(missing_ok=True)
        results = folder / RESULTS
        if results.exists():
            say(
                _(
                    "{path}: cut off, or of another command; it is now {new_path}",
                    path=results,
                    new_path=set_aside(results),
                ),
                to_stderr=True,
            )
        failed: str = _(
            "{path}: the command that scores it failed: {command}",
            path=folder,
            command=shlex.join(public_words(words)),
        )
        if has_log:
            refuse_written_link(folder / SCORE_LOG)
            with (folder / SCORE_LOG).open("wb") as log:
                code = _run_family(words, lock, log.fileno())
            failed = _(
                "{failed}; its output is in {log}{last_line}",
                failed=failed,
                log=folder / SCORE_LOG,
                last_line=_last_line(folder / SCORE_LOG),
            )
        else:
            code = _run_family(words, lock, sys.stderr.fileno())
        if code:
            raise ContentError(failed)
        write_json(folder / SCORED, {"command": public_text(evaluation)})


def _run_family(words: list[str], lock: int, output: int) -> int:
    """Run a command that ends with this process, and return its exit code. It inherits the lock."""
    options = {"stdout": output, "stderr": subprocess.STDOUT, "pass_fds": (lock,)}
    process = start_family(words, env=users_environment(words), **options)
    try:
        return process.wait()
    finally:
        end_process(process)


def _last_line(log: Path) -> str:
    last = read_end(log).rstrip().rpartition("\n")[2]
    if not last:
        return ""
    return f"\n{last}"


def is_finished(recipe: Recipe, evaluation: str | None, target: Machine) -> bool:
    """True if a point is trained, and scored by the command if there is one."""
    if not is_trained(recipe, target):
        return False
    return evaluation is None or is_scored(recipe.output_dir, evaluation)


def commands(
    recipes: Sequence[Recipe],
    sweep_words: Sequence[str],
    evaluation: str | None,
    target: Machine,
    options: Sequence[str] = (),
) -> list[str]:
    """A shell command for each unfinished point. `sweep_words` are those of the sweep, `options` of both.

    A point that is scored, too, is finished by the sweep command itself: it locks the folder, and sets the
    results of a command that was cut off aside.
    """
    lines = []
    for recipe in recipes:
        if is_finished(recipe, evaluation, target):
            continue
        words = ["tuneyard", "recipe", "train", str(recipe.path), *recipe.overrides]
        if evaluation is not None:
            words = [*sweep_words, "--point", recipe.output_dir.name]
        lines.append(shlex.join([*words, *options]))
    return lines
