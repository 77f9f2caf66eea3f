"""The problems of a recipe: those that our rules find at once, and those that LLaMA-Factory's answer adds."""

import re
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

from tuneyard.core.documents import is_number
from tuneyard.core.errors import SHOWN, Problem, ProblemsError, RequestError
from tuneyard.core.errors.problem_codes import ProblemCode
from tuneyard.core.files import existing
from tuneyard.core.language.message import _, joined, ngettext
from tuneyard.core.language.number_format import size_words
from tuneyard.core.llamafactory.prompt.token_weights import weights_file
from tuneyard.core.training.training_run import STARTED, TRAINING
from tuneyard.recipes.costs import disk_of, setup_of
from tuneyard.recipes.llamafactory.answer import Facts, Rows
from tuneyard.recipes.llamafactory.questions import ask
from tuneyard.recipes.machine.hardware import Machine, world_size
from tuneyard.recipes.output_dir.record import (
    changed_inputs,
    changed_world_size,
    has_training,
    how_to_go_on,
    inputs_of,
)
from tuneyard.recipes.output_dir.resume import resume_problems, step_problems, target_problems
from tuneyard.recipes.recipe import (
    DISK_TOO_SMALL,
    NOTES,
    MachineProblem,
    Recipe,
    RunProblem,
    SettingProblem,
    UnboundedDataProblem,
)
from tuneyard.recipes.recipe.data import NamedDataset, dataset_dir, fits_stage, locate, read_datasets
from tuneyard.recipes.recipe.deepspeed_file import deepspeed_steps
from tuneyard.recipes.recipe.schedule import Schedule, packs, schedule_of, schedule_problems, training_rows
from tuneyard.recipes.recipe.schema import known_keys
from tuneyard.recipes.rules.answer_rules import problems_of_answer
from tuneyard.recipes.rules.setting_rules import problems_of
from tuneyard.recipes.rules.starting_weights import loaded_problems

LOST_ROWS = ProblemCode(
    "E323",
    _("rows that LLaMA-Factory drops or stops at"),
    _("Correct them; `tuneyard data verify` has the reasons."),
)
OTHER_TRAINING = ProblemCode(
    "E340",
    _("an `output_dir` with another training"),
    _("Name another one, or write `overwrite_output_dir: true`."),
)
SET_ASIDE = ProblemCode(
    "W340",
    _("an earlier training that will be set aside"),
    _("Name another `output_dir` to leave it in its place."),
)
FINISHED = ProblemCode(
    "W341",
    _("a training that finished here"),
    _("Name another `output_dir` to train again."),
)
REFUSED_SETTING = ProblemCode(
    "E350", _("a setting that LLaMA-Factory refuses"), _("Change the setting in the message.")
)
NO_SUCH_LAYER = ProblemCode(
    "E351",
    _("`lora_target` matches no layer, or the model cannot be adapted so"),
    _("Take the listed layers, or write `all`."),
)


WRONG_STAGE = "not applicable in the current training stage"  # LLaMA-Factory's words


@dataclass(frozen=True, slots=True)
class Checked:
    """Findings about a recipe on its target machine, with LLaMA-Factory's answer if there is one."""

    recipe: Recipe
    target: Machine
    datasets: list[NamedDataset]
    problems: list[Problem]
    answer: Facts = field(default_factory=Facts)

    @property
    def schedule(self) -> Schedule:
        """Schedule over the recipe's rows, which are 0 if not all of them are counted."""
        recipe, rows = self.recipe, self.answer.train.rows
        if not rows and not regroups(recipe):
            rows_of = {dataset.name: dataset.rows for dataset in self.datasets}
            names = dict.fromkeys(recipe.names("dataset"))  # a missing one has no rows
            counts = [rows_of.get(name) or self.answer.data.get(name, Rows()).rows for name in names]
            if all(counts):
                rows = training_rows(recipe, counts)
        return schedule_of(recipe, rows, world_size(recipe, self.target.gpus))

    def refuse(self, but: tuple[type[Problem], ...] = ()) -> list[Problem]:
        """Raise `ProblemsError` for errors, except for those of a kind in `but`. Otherwise return all."""
        errors = [each for each in self.problems if each.is_error and not isinstance(each, but)]
        if errors:
            raise ProblemsError(errors, str(self.recipe.path))
        return self.problems


@dataclass(frozen=True, slots=True)
class CheckRequest:
    """What a user asks `recipe check` for.

    - `model`: a folder with tokenizer and config, None if the user gave none.
    - `quick`: without LLaMA-Factory.
    - `runs_model_code`: LLaMA-Factory may run the model's Python files.
    """

    recipe: Recipe
    target: Machine
    model: str | None = None
    quick: bool = False
    runs_model_code: bool = False


@dataclass(frozen=True, slots=True)
class CheckReport:
    """All problems of a recipe, the checks that were not made, and LLaMA-Factory's answer in `checked`."""

    problems: list[Problem]
    not_checked: list[str]
    checked: Checked

    @property
    def failed(self) -> bool:
        """True if the recipe cannot be trained as it is."""
        return any(problem.is_error for problem in self.problems)


def check_recipe(
    request: CheckRequest,
    progress: Callable[[list[Problem]], None] = lambda _problems: None,
) -> CheckReport:
    """Check a recipe by our rules, then by LLaMA-Factory.

    `progress` gets the problems of each as they are found. `RequestError` for a model that the user gave and
    that cannot be read.
    """
    recipe, model = request.recipe, request.model
    checked = quick_check(recipe, request.target)
    problems = checked.problems
    progress(problems)
    if not request.quick:
        checked = ask_check(checked, model, runs_model_code=request.runs_model_code)
        reason = checked.answer.template_error or checked.answer.model.error
        if model is not None and reason:
            fix = _("name a folder with config.json and the tokenizer's files, or a model in the hub's cache")
            raise RequestError(_("--model {model}: {reason}; {hint}", model=model, reason=reason, hint=fix))
        progress(checked.problems)
        problems = [*problems, *checked.problems]
    model_name = model or str(recipe.settings.get("model_name_or_path"))
    return CheckReport(problems, list(not_checked(checked, model_name)), checked)


def quick_check(recipe: Recipe, target: Machine) -> Checked:
    """Check a recipe and its datasets without LLaMA-Factory."""
    problems = [*problems_of(recipe, target), *loaded_problems(recipe)]
    datasets, dataset_problems = read_datasets(recipe)
    problems += dataset_problems
    schedule = Checked(recipe, target, datasets, problems).schedule
    counted = {dataset.name for dataset in datasets if dataset.rows is not None}
    if recipe.trains and datasets and counted == set(recipe.datasets) and not regroups(recipe):
        problems += schedule_problems(recipe, schedule)
    problems += deepspeed_steps(recipe, schedule)
    problems += resume_problems(recipe, schedule, schedule.world_size if target.here else None)
    if not any(problem.is_error for problem in problems):
        problems += output_problems(recipe, schedule.world if target.here else {})
    return Checked(recipe, target, datasets, noted(problems, target))


def ask_check(checked: Checked, model: str | None, *, runs_model_code: bool = False) -> Checked:
    """Ask LLaMA-Factory about a recipe. The result has its answer and the problems that this adds.

    It is not asked about data that it would wait for, or read into all memory.
    """
    if any(isinstance(problem, UnboundedDataProblem) for problem in checked.problems):
        return checked
    recipe, target = checked.recipe, checked.target
    explained = is_explained(checked.problems)
    model = model or str(recipe.settings.get("model_name_or_path"))
    answer = ask(recipe, model, target.gpus, runs_model_code=runs_model_code)
    schedule = replace(checked, answer=answer).schedule
    problems = [*answer_problems(recipe, answer, explained), *data_problems(recipe, answer, checked.datasets)]
    problems += problems_of_answer(recipe, answer, checked.datasets)
    problems += target_problems(recipe, answer.model.linear)
    if regroups(recipe) and schedule.rows and recipe.trains:
        problems += [*schedule_problems(recipe, schedule), *step_problems(recipe, schedule)]
    if not explained:  # it reads paths and numbers
        problems += disk_problems(recipe, answer, schedule)
    return replace(checked, answer=answer, problems=noted(problems, target))


def noted(problems: list[Problem], target: Machine) -> list[Problem]:
    """Turn problems of this machine into notes (N…) if the training runs on another one."""
    if target.here:
        return problems
    noted = []
    for problem in problems:
        if isinstance(problem, MachineProblem):
            problem = replace(problem, code=NOTES.get(problem.code, problem.code))
        noted.append(problem)
    return noted


def output_problems(recipe: Recipe, world: dict[str, object]) -> Iterator[Problem]:
    """Check an existing output_dir for a training in this `world`, which is {} on another machine."""
    folder = recipe.output_dir
    if not has_training(folder):
        return  # and the model is not hashed
    inputs = inputs_of(recipe, weights_file(recipe.path))
    differs = changed_inputs(folder, inputs)
    grown = changed_world_size(folder, world) if world and not differs else None
    code, message, hint = FINISHED, "", ""
    if differs:
        code, message = (
            OTHER_TRAINING,
            _("{path} holds another run ({difference})", path=folder, difference=differs),
        )
        fix = _("another output_dir, or overwrite_output_dir: true to set the old one aside")
        hint = how_to_go_on(recipe, inputs, fix)
        if recipe.settings.get("overwrite_output_dir") is True:
            code, hint = SET_ASIDE, _("`tuneyard recipe train` sets it aside")
    elif grown:
        message = _("{path} was trained with {difference}: other steps", path=folder, difference=grown)
        hint = _("`tuneyard recipe train --force` trains it again")
    elif (folder / TRAINING).is_file():
        message = _("{path}: this run already finished here", path=folder)
    elif (folder / STARTED).is_file():
        message = _("{path} holds this run, cut off", path=folder)
        hint = _("`tuneyard recipe train` resumes it")
    if message:
        yield recipe.problem(code, "output_dir", message, hint, RunProblem)


def is_explained(problems: list[Problem]) -> bool:
    """True if our rules found why LLaMA-Factory may refuse a recipe, so that its own words repeat them."""
    return any(each.is_error and isinstance(each, SettingProblem | MachineProblem) for each in problems)


def answer_problems(recipe: Recipe, answer: Facts, explained: bool) -> Iterator[Problem]:
    """Report errors of LLaMA-Factory, at the line of the setting at fault, unless our rules explain them."""
    model = answer.model
    for key, names in model.unfit.items():
        hint = ""
        if key == "lora_target" and model.linear:
            hint = _("write all, or some of {layers}", layers=joined(model.linear[:8]))
        for name in names:
            yield recipe.problem(NO_SUCH_LAYER, key, _("{name} fits no layer of the model", name=name), hint)
    rejections = [
        (
            REFUSED_SETTING,
            _("LLaMA-Factory refuses it: {reason}", reason=answer.rejected),
            answer.rejected,
            answer.at_fault,
        )
    ]
    if not model.unfit:
        message = _("LLaMA-Factory cannot adapt it: {reason}", reason=model.rejected)
        rejections.append((NO_SUCH_LAYER, message, model.rejected, model.at_fault))
    for code, message, words, at_fault in rejections:
        if not words or explained:
            continue
        key = rejected_key(recipe, words, at_fault)
        place = recipe.place(key) if key else str(recipe.path)
        yield Problem(code, place, message, key)


def rejected_key(recipe: Recipe, message: str, at_fault: Collection[str]) -> str:
    """Name the setting that an error of LLaMA-Factory is about, "" if none can be named.

    `at_fault` are the settings without which the error goes. Of these, one that the message names is
    best (PiSSA is `pissa_init`, Unsloth `use_unsloth`), then one whose value it quotes ("Module x is not
    found"). A setting that the recipe lacks is named if the message asks for it. It has no line.
    """
    words = set(re.findall(r"[a-z0-9_]+", message.lower()))

    def is_named(key: str) -> bool:
        stem = key.removeprefix("use_").removesuffix("_init").removesuffix("_mode")
        return key in words or stem in words

    keys = [key for key in recipe.settings if key in at_fault]
    candidates = [key for key in keys or recipe.settings if is_named(key)]
    if candidates:
        return max(candidates, key=len)
    quoted = [key for key in keys if words & _values(recipe, key)]
    if quoted:
        return quoted[-1]
    if keys:
        return keys[-1]
    missing = [key for key in re.findall(r"`([a-z0-9_]+)`", message) if key in known_keys()]
    return missing[0] if missing else ""


def _values(recipe: Recipe, key: str) -> set[str]:
    """Values of a setting that a message may quote: its number, or each of its names."""
    number = recipe.settings.get(key)
    if is_number(number):
        return {f"{number:g}"}
    return {name.lower() for name in recipe.names(key)}


def data_problems(recipe: Recipe, answer: Facts, datasets: list[NamedDataset]) -> Iterator[Problem]:
    """Yield the rows that LLaMA-Factory rejects or drops, after their number if it is large."""
    for dataset in datasets:
        rows = answer.data.get(dataset.name, Rows())
        if dataset.rows == 0 or not rows.bad:
            continue
        entry, path = locate(dataset.name, dataset_dir(recipe), dataset.key)
        _row, reason = rows.problems[0]
        if not fits_stage(recipe, dataset.name, entry) and (rows.rows or WRONG_STAGE in reason):
            continue  # the wrong stage is one finding; every row would repeat it
        if rows.bad > SHOWN:  # the list ends before, unless --all shows it
            message = _("{number} of {rows} rows cannot be trained on", number=rows.bad, rows=rows.rows)
            if rows.bad >= rows.rows:
                message = _("all {number} rows fail to convert", number=rows.bad)
            yield Problem(LOST_ROWS, str(path), message, dataset.name)
        for row, why in rows.problems:
            place = f"{path} row {row}" if row else str(path)
            yield Problem(LOST_ROWS, place, why, dataset.name)


def disk_problems(recipe: Recipe, answer: Facts, schedule: Schedule) -> Iterator[Problem]:
    """Report checkpoints that do not fit on the disk."""
    shapes = answer.model.shapes
    if not schedule.rows or not shapes.trainable:
        return
    each, count, free = disk_of(recipe, shapes, setup_of(recipe, 0, schedule.world_size), schedule)
    if each * count > free:
        hint = _("a smaller save_total_limit, or save_only_model: true")
        message = ngettext(
            "{number:,} checkpoint takes {size}, {free} are free on this machine in {folder}",
            "{number:,} checkpoints take {size}, {free} are free on this machine in {folder}",
            count,
            number=count,
            size=size_words(each * count),
            free=size_words(free),
            folder=existing(recipe.output_dir),
        )
        yield recipe.problem(DISK_TOO_SMALL, "output_dir", message, hint, MachineProblem)


def regroups(recipe: Recipe) -> bool:
    """True if an epoch does not have the rows of the datasets: packed, or interleaved by probability."""
    return packs(recipe) or str(recipe.settings.get("mix_strategy")).startswith("interleave")


def not_checked(checked: Checked, model: str) -> Iterator[str]:
    """Report the checks that were not made. If the model is missing, name the way to make them."""
    answer = checked.answer
    for dataset in checked.datasets:
        if dataset.elsewhere:
            yield _(
                "{key} {name}: no local file ({place})",
                key=dataset.key,
                name=dataset.name,
                place=dataset.elsewhere,
            )
    needs_folder = not Path(model).is_dir()
    adapted: str = _("parameters and disk")
    if checked.recipe.method == "lora":
        adapted = "lora_target"
    if answer.template_error:
        yield _not_asked(_("template and cutoff_len"), answer.template_error, needs_folder)
    if answer.model.error:
        yield _not_asked(adapted, answer.model.error, needs_folder)
    for name, rows in answer.data.items():
        if rows.error:
            yield _("the rows of {name} ({reason})", name=name, reason=rows.error)


def _not_asked(settings: str, reason: str, needs_folder: bool) -> str:
    """Name settings that LLaMA-Factory was not asked about, and how to give it the model."""
    if needs_folder:
        return _(
            "{settings} ({reason}); give a model folder with --model DIR", settings=settings, reason=reason
        )
    return _("{settings} ({reason})", settings=settings, reason=reason)
