"""A new recipe: data and model are measured, the settings chosen, and the result is checked."""

import itertools
import math
import re
import shlex
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass, replace
from decimal import Decimal
from pathlib import Path
from typing import Any

from tuneyard.core.datasets import DEFAULT_FOLDER
from tuneyard.core.documents import dump_yaml
from tuneyard.core.errors import ContentError, Problem, RequestError, summarise
from tuneyard.core.execution.state import CURRENT, NEW, State
from tuneyard.core.files import no_folder
from tuneyard.core.files.bounded_reading import open_regular, read_regular
from tuneyard.core.files.scratch import scratch_folder
from tuneyard.core.language.message import _, counted, joined, marked, translated, typed
from tuneyard.core.llamafactory.template_choice import TemplateChoice
from tuneyard.core.text.quoting import one_line
from tuneyard.recipes.checking.checked import Checked, ask_check, quick_check
from tuneyard.recipes.llamafactory.answer import Facts, LaidOut, Rows
from tuneyard.recipes.llamafactory.questions import ask_measures
from tuneyard.recipes.machine.hardware import GPUS, GpuModel, gpu_model
from tuneyard.recipes.new.memory import GpuFit, gpu_fit, zero_setting
from tuneyard.recipes.new.objectives import OBJECTIVES
from tuneyard.recipes.new.settings import (
    METHODS,
    VAL_SIZE,
    Cutoff,
    Measured,
    RecipeRequest,
    Section,
    choose_block,
    choose_cutoff,
    largest_micro_batch,
    rows_of_step,
    sections,
)
from tuneyard.recipes.planning.lines import memory_line, time_line, unknown_lines
from tuneyard.recipes.planning.training_plan import Offer, make_plan
from tuneyard.recipes.recipe import Recipe, read_recipe
from tuneyard.recipes.recipe.schedule import schedule_of
from tuneyard.recipes.rules.starting_weights import is_missing

MOST_GPUS = (1, 2, 4, 8)
WIDTH = 110
NUMBER = re.compile(r"[-+]?[\d.]+([eE][-+]?\d+)?")
LONGEST_HEAD = 1 << 14
"""Bytes of a recipe in which the command that made it is."""


@dataclass(frozen=True, slots=True)
class NewRecipe:
    """A recipe without errors: its text, the remaining problems, and a summary for the terminal.

    `deepspeed` is the bundled ZeRO file that it needs, "" for none.
    """

    text: str
    deepspeed: str
    problems: list[Problem]
    summary: list[str]


def may_be_recipe(out: Path) -> bool:
    """True if `recipe new` may have written a file, as its header says. Any other one is not measured for."""
    if not out.is_file():
        return False
    with open_regular(out) as file:
        head = file.read(LONGEST_HEAD)
    return b"tuneyard recipe new" in head


def recipe_state(out: Path, recipe: NewRecipe) -> State:
    """Whether a file is the recipe that would be written. It may have been edited, or its rows changed."""
    if not out.exists():
        return NEW
    content = recipe.text.encode()
    if out.is_file() and out.stat().st_size == len(content) and read_regular(out) == content:
        return CURRENT
    return State("stale", (_("{path} is not what would be written now", path=out),))


def new_recipe(request: RecipeRequest) -> NewRecipe:
    """Measure data and model, choose the settings, and check them.

    `RequestError` names the part that a good recipe needs, `ContentError` lists errors of the result.
    """
    counts = _counts(request, *_measured(request))
    values = sections(request, counts)
    recipe = _as_recipe(recipe_text([], values), request.out)
    deepspeed = ""
    if counts.fit is not None and counts.fit.deepspeed:
        deepspeed = counts.fit.deepspeed
        recipe = recipe.with_settings({"deepspeed": deepspeed})  # its copy is written after the check
    checked = _checked(recipe, request)
    expected = [
        _("steps        {schedule}", schedule=checked.schedule.line()),
        *_expected(recipe, request),
    ]
    header = _header(request, counts, expected)
    text = recipe_text(header, values)
    rows = _amount(request, counts.rows)
    summary = [
        _(
            "{path}: {objective}, {trains}, {rows}",
            path=request.out,
            objective=request.data.objective,
            trains=METHODS[request.method].trains,
            rows=rows,
        ),
        _("template     {name}", name=_template_words(counts.template)),
        _("cutoff_len   {tokens}: {reason}", tokens=counts.cutoff.tokens, reason=counts.cutoff.reason),
        *expected,
    ]
    if request.machine.name == "gpu":
        summary.append(_("machine      an A100-80 is assumed: --for names yours (this, cpu, 4xT4, …)"))
    setting = zero_setting(deepspeed, request.out)
    if setting != deepspeed:
        summary.append(_("deepspeed    {file}: a copy, which travels with the recipe", file=setting))
    return NewRecipe(text, deepspeed, checked.problems, summary)


def _amount(request: RecipeRequest, rows: int) -> str:
    """Rows, or packed blocks of running text, in words."""
    if request.data.objective == "pt":
        return counted(rows, "block", "blocks")
    return counted(rows, "row", "rows")


def _template_words(template: TemplateChoice | None) -> str:
    """The template for the summary. Running text has none at all."""
    if template is None:
        return _("none: plain text")
    return template.name or _("none: the chat template of the tokenizer")


def _measured(request: RecipeRequest) -> tuple[Facts, TemplateChoice | None]:
    """LLaMA-Factory's measures. `RequestError` if the model, its template or a fitting method is missing."""
    data, model = request.data, request.model
    settings = {**request.basic_settings(), "output_dir": request.output_dir, "overwrite_cache": True}
    rows = {"has_media": data.has_media, "has_thoughts": data.has_thoughts}
    recipe = Recipe(request.out, settings, {})
    answer, template = ask_measures(
        recipe, request.machine.gpus, rows, runs_model_code=request.runs_model_code
    )
    if answer.rejected:
        raise RequestError(
            _(
                "--method {method} --stage {stage}: LLaMA-Factory refuses it: {reason}",
                method=request.method,
                stage=data.objective,
                reason=answer.rejected,
            )
        )
    reason = answer.template_error or answer.model.error
    if reason:
        raise model_error(model, reason)
    if template is not None and template.findings:
        nearest = template.name or _("that of the tokenizer, as LLaMA-Factory reads it")
        raise RequestError(
            _(
                "--model {model}: no template of LLaMA-Factory writes the model's own prompt. The "
                "nearest is {template}: {difference}; write the recipe by hand (tuneyard recipe "
                "check), or take another model",
                model=model,
                template=nearest,
                difference=template.findings[0].message,
            )
        )
    for name in filter(None, (data.name, data.eval_name)):
        if not answer.data[name].lengths:
            raise ContentError(_untrainable(name, data.folder, answer.data[name]))
    return answer, template


def model_error(model: str, reason: str) -> RequestError:
    """The error of a model that cannot be read, with the model to name or to fetch."""
    fix: str = _("name a folder with config.json and the tokenizer's files")
    if Path(model).is_dir():
        return RequestError(_("--model {model}: {reason}; {hint}", model=model, reason=reason, hint=fix))
    if "/" not in model:
        fix = _(
            "name a folder with config.json and the tokenizer's files, or a hub id, which is OWNER/NAME "
            "(e.g. Qwen/Qwen2.5-7B)"
        )
    elif not is_missing(model):  # a hub id, not a path here
        fetch = shlex.join(["hf", "download", model])
        fix = _(
            "{reason}; name a folder with config.json and the tokenizer's files, or fetch the model into the "
            "hub's cache: {command}",
            reason=reason,
            command=fetch,
        )
    return RequestError(_("--model {message}", message=no_folder(model, fix)))


def _untrainable(name: str, folder: Path, rows: Rows) -> str:
    """Message for a dataset without a row that can be trained on."""
    reason = rows.error
    if rows.problems:
        row, reason = rows.problems[0]
        if row:
            reason = _("row {row}: {reason}", row=row, reason=reason)
    verify = ["tuneyard", "data", "verify", name]
    if folder != DEFAULT_FOLDER:
        verify += ["--dataset-dir", str(folder)]
    return _(
        "{name}: no row can be trained on: {reason}; {command}",
        name=name,
        reason=reason or _("it has none"),
        command=typed(verify),
    )


def _counts(request: RecipeRequest, answer: Facts, template: TemplateChoice | None) -> Measured:
    """Rows or blocks, cutoff_len and the fit to memory. `RequestError` if no setup fits the machine."""
    data, positions = request.data, answer.model.positions
    lengths = answer.data[data.name].lengths
    if data.eval_name:
        eval_lengths = answer.data[data.eval_name].lengths
    else:
        held_out = math.ceil(VAL_SIZE * len(lengths))  # as `train_test_split` of datasets rounds
        lengths, eval_lengths = lengths[held_out:], lengths[:held_out]
        if not lengths:
            raise RequestError(
                _("{name} has one row: none is left to train on; compile more rows", name=data.name)
            )
    if data.objective == "pt":
        tokens, eval_tokens = sum(map(sum, lengths)), sum(map(sum, eval_lengths))
        cutoff = choose_block(tokens, eval_tokens, positions)
        rows, eval_rows = tokens // cutoff.tokens, eval_tokens // cutoff.tokens
        longest = cutoff.tokens
    else:
        of_rows = [max(row) for row in lengths]  # of both sides of a pair the longer one
        cutoff = choose_cutoff(of_rows, positions)
        rows, eval_rows = len(lengths), len(eval_lengths)
        longest = min(max(of_rows), cutoff.tokens)
    _refuse_idle_gpus(request, rows)
    fit = _fit(request, answer.model, rows, cutoff, longest)
    return Measured(rows, eval_rows, template, cutoff, fit)


def _refuse_idle_gpus(request: RecipeRequest, rows: int) -> None:
    """Raise `RequestError` if one row for each GPU is already more than there are (W332 of the check)."""
    smallest = Recipe(request.out, {"per_device_train_batch_size": 1}, {})
    schedule = schedule_of(smallest, rows, request.ranks)
    if not schedule.lacks_rows:
        return
    gpus_that_get_rows = rows_of_step(rows, 1)
    gpu = gpu_model(request.machine.gpus[0].name)
    raise RequestError(
        _(
            "--for {machine}: a step takes at least {batch:,} rows, one for each GPU, and {name} "
            "has {rows}, enough for at most {gpus}; name fewer: --for {number}x{gpu}",
            machine=request.machine.name,
            batch=schedule.batch,
            name=request.data.name,
            rows=_amount(request, rows),
            gpus=counted(rows, "GPU", "GPUs"),
            number=gpus_that_get_rows,
            gpu=gpu,
        )
    )


def _fit(request: RecipeRequest, model: LaidOut, rows: int, cutoff: Cutoff, longest: int) -> GpuFit | None:
    """The fit to the machine's memory, None if it is not planned. `RequestError` if no setup fits."""
    if not request.machine.gpus or model.rejected:
        return None
    settings = request.basic_settings()
    gpu = GPUS[gpu_model(request.machine.gpus[0].name)]

    def fit(tokens: int, ranks: int, gpu: GpuModel) -> GpuFit | None:
        most_rows = largest_micro_batch(rows, ranks)
        return gpu_fit(settings, model.shapes, tokens, ranks, gpu.memory, most_rows)

    fitting = fit(longest, request.ranks, gpu)
    if fitting is not None:
        return fitting
    message = _(
        "--for {machine}: {model} with rows of {longest:,} tokens (cutoff_len "
        "{tokens:,}) needs more than the {memory:.0f} GB of a GPU, even one row at a "
        "time",
        machine=request.machine.name,
        model=request.model,
        longest=longest,
        tokens=cutoff.tokens,
        memory=gpu.memory / 1e9,
    )
    fixes = []
    for ranks, name in itertools.product(MOST_GPUS, sorted(GPUS, key=lambda name: GPUS[name].memory)):
        if fit(longest, ranks, GPUS[name]):
            fixes.append(_("take a larger machine: --for {number}x{gpu}", number=ranks, gpu=name))
            break
    if METHODS[request.method].is_adapter and not settings.get("quantization_bit"):
        fixes.append(_("try --method qlora, whose base takes a quarter of the memory"))
    fixes.append(_("take shorter rows or a smaller model"))
    alternatives = joined(fixes, _(", or "))
    raise RequestError(_("{message}; {fixes}", message=message, fixes=alternatives))


def _as_recipe(text: str, out: Path) -> Recipe:
    """Read the text of a recipe as if it were in `out`, which is not written yet."""
    with scratch_folder() as folder:
        path = folder / out.name
        path.write_text(text, encoding="utf-8")
        return replace(read_recipe(path), path=out)


def _checked(recipe: Recipe, request: RecipeRequest) -> Checked:
    """The whole check, with all of its problems. `ContentError` lists the errors."""
    checked = quick_check(recipe, request.machine)
    problems = checked.problems
    if not any(problem.is_error for problem in problems):
        checked = ask_check(checked, None, runs_model_code=request.runs_model_code)
        problems = [*problems, *checked.problems]
    at_settings = [replace(problem, place=_place(problem, request.out)) for problem in problems]
    errors = [problem for problem in at_settings if problem.is_error]
    if errors:
        raise ContentError(
            _(
                "{path} was not written, since the recipe would have errors:\n{problems}",
                path=request.out,
                problems=summarise(errors),
            )
        )
    return replace(checked, problems=at_settings)


def _place(problem: Problem, out: Path) -> str:
    """Place of a problem; of a setting the file alone, whose header adds lines."""
    if problem.place.startswith(f"{out}:"):
        return str(out)
    return problem.place


def _expected(recipe: Recipe, request: RecipeRequest) -> list[str]:
    """Lines on memory and time, as `recipe plan` estimates them."""
    if not request.machine.gpus:
        return [_("memory, time are estimated for GPUs only")]
    try:
        offer = Offer(request.machine)
        plan = make_plan(recipe, offer, None, runs_model_code=request.runs_model_code)
    except RequestError as error:
        return [_("memory, time are not known: {reason}", reason=error)]
    return [memory_line(plan), time_line(plan), *unknown_lines(plan)]


def _header(request: RecipeRequest, counts: Measured, expected: Sequence[str]) -> list[str]:
    """Comments at the top: what the recipe trains, how to launch it, what to expect."""
    data, out = request.data, shlex.quote(str(request.out))
    objective = OBJECTIVES[data.objective]
    words = ["tuneyard", "recipe", "new", "--dataset", data.name, "--model", request.model]
    words += ["--dataset-dir", str(data.folder), "--stage", data.objective, "--for", request.machine.name]
    words += ["--method", request.method, "--out", str(request.out)]
    if request.runs_model_code:
        words.append("--trust-remote-code")
    best = ["tuneyard", "recipe", "best", request.output_dir]
    if data.objective == "rm":
        best += ["--metric", "eval_accuracy"]
    plain = f"llamafactory-cli train {out}"
    if counts.fit is not None and counts.fit.deepspeed and request.ranks == 1:
        plain = f"FORCE_TORCHRUN=1 {plain}"
    template = marked("{trains} of {model} on {name} (stage {stage}), on {machine}.")
    if objective.pref_loss:
        template = marked(
            "{trains} of {model} on {name} (stage {stage}, pref_loss {pref_loss}), on {machine}."
        )
    about = _(
        template,
        trains=METHODS[request.method].trains,
        model=request.model,
        name=data.name,
        stage=objective.stage,
        pref_loss=objective.pref_loss,
        machine=request.machine_words,
    )
    return [
        about,
        "",
        _("Made by {command}", command=shlex.join(words)),
        "",
        _(
            "  train      tuneyard recipe train {recipe}      (checks first; run again, it resumes)",
            recipe=out,
        ),
        _("  or         {command}", command=plain),
        _("  then       {command}", command=shlex.join(best)),
        "",
        *expected,
    ]


def recipe_text(header: Sequence[str], sections: Sequence[Section]) -> str:
    """A whole recipe: its header as comments, then the sections."""
    lines: list[str] = []
    for text in header:
        lines += _comment(text) or ["#"]
    for title, values in sections:
        lines += ["", f"### {title}"]
        for value in values:
            lines += _comment(value.reason)
            if value.key:
                lines.append(f"{value.key}: {scalar(value.value)}")
    return "\n".join(lines) + "\n"


def _comment(text: str) -> list[str]:
    """A text as comment lines in the language of the reader, [] for ""."""
    lines = map(one_line, translated(text).splitlines())  # YAML forbids control characters
    commented = textwrap.indent("\n".join(lines), "# ")
    return textwrap.wrap(
        commented, WIDTH, subsequent_indent="# ", break_long_words=False, break_on_hyphens=False
    )


def scalar(value: Any) -> str:
    """A value as YAML that OmegaConf reads as the same value: 1.0e-4, not 0.0001."""
    if isinstance(value, float) and 0 < value < 1e-2:
        digits, exponent = f"{Decimal(repr(value)).normalize():e}".split("e")
        if "." not in digits:
            digits += ".0"
        return f"{digits}e{int(exponent)}"
    if isinstance(value, str) and NUMBER.fullmatch(value):
        return f"'{value}'"  # PyYAML writes 1e-4 without quotes, and OmegaConf reads a number
    return dump_yaml({"key": value}).removeprefix("key: ").removesuffix("\n")
