"""A plan of a training on a machine: steps, tokens, memory, time, cost and disk."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

from tuneyard.core.errors import RequestError
from tuneyard.core.language.message import _
from tuneyard.recipes import costs
from tuneyard.recipes.checking.checked import (
    Checked,
    answer_problems,
    ask_check,
    is_explained,
    noted,
    quick_check,
)
from tuneyard.recipes.llamafactory.answer import EpochCounts
from tuneyard.recipes.llamafactory.questions import ask
from tuneyard.recipes.machine.hardware import GPUS, Machine, gpu_model, machine
from tuneyard.recipes.recipe import MachineProblem, Recipe, RunProblem
from tuneyard.recipes.recipe.schedule import held_out_rows, packed_batches, packs, training_rows
from tuneyard.recipes.rules.answer_rules import CUTOFF_LEN, problems_of_answer
from tuneyard.recipes.rules.setting_rules import problems_of
from tuneyard.recipes.rules.starting_weights import loaded_problems

NOT_PLANNED = (MachineProblem, RunProblem)  # what the plan says itself, or has nothing to do with it
Range = dict[str, int]  # bytes by purpose, and in `total`


@dataclass(frozen=True, slots=True)
class Offer:
    """A machine to plan for, with its price an hour if there is one."""

    target: Machine
    price: float | None = None


@dataclass(frozen=True, slots=True)
class TrainingPlan:
    """A training on a machine, as `--json` prints it: bytes, seconds and tokens.

    `memory` has both ends for a GPU, `seconds` and `cost` have the middle, too (None: not known).
    `tokens_counted`: the rows were read. `tokens_expected`: they are those of --rows and --tokens.
    """

    recipe: str
    machine: str
    steps: int | None
    schedule: str
    rows: int
    batch: int
    tokens: int
    tokens_counted: bool
    tokens_expected: bool
    tokens_cut: bool
    longest: int
    trainable: int
    parameters: int
    gpu: str
    gpus: int
    gpu_bytes: float
    memory: dict[str, Range]
    seconds: Range | None
    cost_per_hour: float | None
    cost: dict[str, float] | None
    not_modelled: list[str]
    checkpoint: int
    checkpoints: int
    disk_free: int

    @property
    def total(self) -> tuple[int, int]:
        """Both ends of the memory of a GPU."""
        return self.memory["lower"]["total"], self.memory["upper"]["total"]

    @property
    def may_fit(self) -> bool:
        """True unless even the lower end of the memory is more than a GPU has."""
        return self.total[0] <= self.gpu_bytes

    @property
    def fits(self) -> str:
        """Whether the training fits its GPUs, in words. It fits if the upper end does."""
        if not self.may_fit:
            return _("does NOT fit")
        if self.total[1] > self.gpu_bytes:
            return _("may NOT fit")
        return _("fits")

    @property
    def is_partly_known(self) -> bool:
        """True if a part that is not modelled could change whether the training fits."""
        return bool(self.not_modelled) and not (self.may_fit and self.total[1] > self.gpu_bytes)


@dataclass(frozen=True, slots=True)
class ExpectedRows:
    """Training data that does not exist yet: its rows, and the mean tokens of a row (a pair has two such)."""

    rows: int
    tokens: int


def read_offer(text: str) -> Offer:
    """Read a machine with or without a price, e.g. `4xA100-80@8.5`. `RequestError` for anything else."""
    name, at_sign, amount = text.partition("@")
    price = None
    if at_sign:
        try:
            price = float(amount)
        except ValueError:
            price = math.nan
        if not (math.isfinite(price) and price >= 0):
            raise RequestError(
                _(
                    "--for {machine}: expected a price an hour after @, as in 4xA100-80@8.5; give --for "
                    "once for each machine",
                    machine=text,
                )
            )
    target = machine(name)
    if not target.gpus:
        reason = _("plan estimates the memory and time of GPUs")
        if target.here:
            reason = _("no GPU was found on this machine")
        raise RequestError(
            _(
                "--for {machine}: {reason}; name the GPUs to train on, e.g. --for A100-80",
                machine=name,
                reason=reason,
            )
        )
    return Offer(target, price)


class PlanRequest(NamedTuple):
    """What a user asks `recipe plan` for: a plan for each machine of `offers`.

    - `model`: a folder with tokenizer and config, None if the user gave none.
    - `expected`: rows that do not exist yet, None for those of the recipe's datasets.
    """

    recipe: Recipe
    offers: Sequence[Offer]
    model: str | None = None
    expected: ExpectedRows | None = None
    runs_model_code: bool = False


def make_plans(request: PlanRequest) -> list[TrainingPlan]:
    """Plan a training for each machine. LLaMA-Factory is imported once."""
    recipe, model, expected = request.recipe, request.model, request.expected
    runs_model_code = request.runs_model_code
    return [
        make_plan(recipe, offer, model, expected, runs_model_code=runs_model_code) for offer in request.offers
    ]


def make_plan(
    recipe: Recipe,
    offer: Offer,
    model: str | None,
    expected: ExpectedRows | None = None,
    *,
    runs_model_code: bool = False,
) -> TrainingPlan:
    """The plan in bytes and seconds. `RequestError` if the model's config is not on this machine."""
    if not recipe.trains:
        raise RequestError(
            _(
                "{path}: do_train is not true: nothing to plan; `recipe check` says more",
                path=recipe.place("do_train"),
            )
        )
    gpu_name = gpu_model(offer.target.gpus[0].name)
    gpu = GPUS[gpu_name]
    if expected is None:
        checked = quick_check(recipe, offer.target)
        checked.refuse(NOT_PLANNED)
        checked = ask_check(checked, model, runs_model_code=runs_model_code)
    else:
        model = model or recipe.text("model_name_or_path")
        checked = _check_without_data(recipe, offer.target, model, expected, runs_model_code)
    checked.refuse(NOT_PLANNED)
    answer, train, schedule = checked.answer, checked.answer.train, checked.schedule
    if answer.model.error:
        why = _("the model's config is not at hand ({reason})", reason=answer.model.error)
        raise RequestError(_("{reason}; give a folder with config.json: --model DIR", reason=why))
    ranks, shapes = schedule.world_size, answer.model.shapes
    longest, mean = train.longest, train.seen / max(1, train.rows)
    if not train.rows:
        longest = int(recipe.number("cutoff_len", CUTOFF_LEN))
    setup = costs.setup_of(recipe, longest, ranks)
    total = mean * schedule.batch * schedule.steps
    memory = _memory(costs.estimate(shapes, setup))
    length = mean / setup.sequences
    work = costs.flops(shapes, setup, total, length) / ranks
    passes = 1 + setup.read / 3  # a trained one is three of those that only read
    micro_batches = schedule.steps * schedule.accumulated * passes
    time = costs.duration(shapes, setup, work, total / ranks, micro_batches, gpu)
    each, checkpoints, free = costs.disk_of(recipe, shapes, setup, schedule)
    steps: int | None = None
    line: str = _("rows and steps are not known")
    if schedule.rows:
        steps, line = schedule.steps, schedule.line()
    seconds, cost = None, None
    if work:
        seconds = {name: round(value) for name, value in time._asdict().items()}
        if offer.price is not None:
            cost = {name: round(value / 3600 * offer.price, 2) for name, value in time._asdict().items()}
    parameters = shapes.parameters
    if not setup.full:
        parameters += shapes.trainable  # an adapter's are added to the model's, as in LLaMA-Factory's log
    return TrainingPlan(
        recipe=str(recipe.path), machine=offer.target.name, steps=steps, schedule=line,
        rows=schedule.rows, batch=schedule.batch,
        tokens=round(total), tokens_counted=expected is None and train.rows > 0,
        tokens_expected=expected is not None, tokens_cut=is_cut(recipe, expected), longest=longest,
        trainable=shapes.trainable, parameters=parameters,
        gpu=gpu_name, gpus=ranks, gpu_bytes=gpu.memory,
        memory=memory,
        seconds=seconds, cost_per_hour=offer.price, cost=cost,
        not_modelled=costs.unmodelled(recipe, shapes, answer.model.quantised),
        checkpoint=each, checkpoints=checkpoints, disk_free=free,
    )  # fmt: skip


def _check_without_data(
    recipe: Recipe, target: Machine, model: str, expected: ExpectedRows, runs_model_code: bool
) -> Checked:
    """Check a recipe's settings and model. Its answer has the tokens of the expected rows."""
    if not recipe.names("dataset"):
        recipe = recipe.with_settings({"dataset": "rows_to_come"})  # LLaMA-Factory wants a name
    problems = noted([*problems_of(recipe, target), *loaded_problems(recipe)], target)
    checked = Checked(recipe, target, [], problems)
    checked.refuse(NOT_PLANNED)
    answer = ask(recipe, model, target.gpus, runs_model_code=runs_model_code)
    answer = replace(answer, train=epoch_of(recipe, expected))
    explained = is_explained(problems)
    problems = [*answer_problems(recipe, answer, explained), *problems_of_answer(recipe, answer, [])]
    return replace(checked, answer=answer, problems=noted(problems, target))


def epoch_of(recipe: Recipe, expected: ExpectedRows) -> EpochCounts:
    """Rows or packed blocks of an epoch, the tokens in them, and the longest row.

    Rows longer than cutoff_len are cut. The longest row is taken to reach cutoff_len. `RequestError` if the
    rows, or those that `val_size` holds out of them, do not fill one packed block.
    """
    cutoff = int(recipe.number("cutoff_len", CUTOFF_LEN))
    datasets = len(recipe.names("dataset"))  # taken to be of one size
    counts = [len(range(n, expected.rows, datasets)) for n in range(datasets)]
    rows = training_rows(recipe, counts)
    if not packs(recipe):
        sides = costs.setup_of(recipe, cutoff, 1).sequences
        return EpochCounts(rows, rows * min(expected.tokens, cutoff) * sides, cutoff)
    held_out = held_out_rows(recipe, counts)
    blocks = _expected_blocks(recipe, rows, expected.tokens, cutoff)
    shortage = ""
    if not blocks:
        shortage = _(
            "{rows} rows of {tokens} tokens fill no block of {cutoff} (packing, cutoff_len)",
            rows=rows,
            tokens=expected.tokens,
            cutoff=cutoff,
        )
    elif held_out and not _expected_blocks(recipe, held_out, expected.tokens, cutoff):
        shortage = _(
            "{held_out} rows of {tokens} tokens fill no block of {cutoff} (val_size, cutoff_len)",
            held_out=held_out,
            tokens=expected.tokens,
            cutoff=cutoff,
        )
    if shortage:
        raise RequestError(
            _("{path}: {shortage}; more rows, or a smaller cutoff_len", path=recipe.path, shortage=shortage)
        )
    return EpochCounts(blocks, blocks * cutoff, cutoff)


def _expected_blocks(recipe: Recipe, rows: int, tokens: int, cutoff: int) -> int:
    """Blocks of `cutoff` tokens into which LLaMA-Factory packs rows of so many tokens."""
    if recipe.stage != "pt":
        return math.ceil(rows * min(tokens, cutoff) / cutoff)
    workers = int(recipe.number("preprocessing_num_workers", 1))
    batches = packed_batches(rows, workers, int(recipe.number("preprocessing_batch_size", 1000)))
    return sum(size * tokens // cutoff for size in batches)  # the rest of each batch is dropped


def is_cut(recipe: Recipe, expected: ExpectedRows | None) -> bool:
    """True if even a mean row is longer than cutoff_len. Packed running text is split instead of cut."""
    if expected is None or (packs(recipe) and recipe.stage == "pt"):
        return False
    return expected.tokens > int(recipe.number("cutoff_len", CUTOFF_LEN))


def _memory(terms: Sequence[costs.Term]) -> dict[str, Range]:
    """Both ends of the bytes of a GPU by purpose, and in `total`."""
    ends: dict[str, Range] = {"lower": {}, "upper": {}}
    for name in dict.fromkeys([term.name for term in terms] + ["total"]):
        lower, upper = costs.total_bytes(terms, None if name == "total" else name)
        ends["lower"][name], ends["upper"][name] = round(lower), round(upper)
    return ends
