"""LLaMA-Factory's stages in one table: the rows that each trains on, and the work of a training step.

`recipe check` and `data verify --recipe` decide by it whether a stage can train a dataset (E434). Planning,
the rules on learning rates and metrics, and the reports on bad rows read their figures here.
"""

from typing import NamedTuple

from tuneyard.core.errors import Problem
from tuneyard.core.errors.problem_codes import ProblemCode
from tuneyard.core.files import strings
from tuneyard.core.language.message import _, joined
from tuneyard.core.records import KTO_TAG, Entry
from tuneyard.core.records.answers import PAIRED

UNFIT_STAGE = ProblemCode(
    "E434",
    _("a stage that does not fit the data"),
    _("`rm` and `dpo` take pairs, `kto` takes marked rows, `sft` and `pt` all others."),
)


_SIDES = (
    "rewards/chosen", "rewards/rejected",
    "logps/chosen", "logps/rejected",
    "logits/chosen", "logits/rejected",
)  # fmt: skip


class DatasetRows(NamedTuple):
    """A kind of rows, by the form of their answers.

    `stage` is the loader's name for the stage that trains on them (dpo reads the rows of rm). `edit` is the
    fix for a recipe with another stage.
    """

    stage: str
    description: str
    edit: str


PLAIN = DatasetRows("sft", _("plain answers, neither pairs nor marked ones"), _("write `stage: sft`"))
PAIRS = DatasetRows("rm", _("preference pairs (`ranking: true`)"), _("write `stage: dpo` or `stage: rm`"))
TAGGED = DatasetRows(
    "kto", _("answers tagged as desirable or not (`{key}`)", key=KTO_TAG), _("write `stage: kto`")
)


class TrainingStage(NamedTuple):
    """One stage of LLaMA-Factory 0.9.5.

    - `rows`: the kind of rows that it trains on; None if it takes all but pairs.
    - `answers`: answers of a row once it is loaded; None if `data verify` does not check them.
    - `encoded_lists`: lists of tokens that the processor's encoder makes of a row.
    - `expected_answers`: the answers of a row in words.
    - `sides`: sequences of a row in one micro batch. `sequences`: those that a step puts through the model.
    - `learned`: share of these that are learned. `read`: rows that a step reads without learning, 1 a row.
    - `reads_reference`: a second model, or the base, reads them. None: only with some values of `pref_loss`.
    - `adapter_rates`, `weight_rates`: lowest and highest published learning rate (docs/recipes.md).
    - `metrics`: figures of an evaluation, `logged`: figures that the trainer logs during the training.
    - `is_planned`: `recipe plan` knows its memory and time.
    """

    rows: DatasetRows | None
    answers: int | None = None
    encoded_lists: int = 2
    expected_answers: str = _("one answer")
    sides: int = 1
    sequences: int = 1
    learned: float = 1.0
    read: float = 0.0
    reads_reference: bool | None = False
    adapter_rates: tuple[float, float] | None = None
    weight_rates: tuple[float, float] | None = None
    metrics: tuple[str, ...] = ()
    logged: tuple[str, ...] = ()
    is_planned: bool = True


_DPO_METRICS = (*_SIDES, "rewards/accuracies", "rewards/margins", "sft_loss", "odds_ratio_loss")
_TAGGED_METRICS = (*_SIDES, "rewards/margins")
_REWARD_MODEL = TrainingStage(
    PAIRS,
    2,
    encoded_lists=4,
    expected_answers=_("two answers"),
    sides=2,
    sequences=2,
    adapter_rates=(2e-5, 1e-4),
    weight_rates=(9e-6, 1e-4),
    metrics=("accuracy",),
)
TRAINING_STAGES = {
    "pt": TrainingStage(None, 0, adapter_rates=(1e-4, 3e-4), weight_rates=(5e-5, 1e-3)),
    "sft": TrainingStage(PLAIN, 1, adapter_rates=(5e-6, 3e-4), weight_rates=(3e-6, 5e-5)),
    "rm": _REWARD_MODEL,
    "dpo": _REWARD_MODEL._replace(  # it reads the same rows
        reads_reference=None,
        adapter_rates=(5e-7, 1e-4),
        weight_rates=(3e-7, 1e-5),
        metrics=_DPO_METRICS,
        logged=_DPO_METRICS,
    ),
    "kto": TrainingStage(
        TAGGED,
        2,
        encoded_lists=5,
        expected_answers=_("an answer with true or false"),
        sequences=2,
        learned=0.5,
        read=1.5,
        reads_reference=True,
        adapter_rates=(5e-7, 1e-4),
        weight_rates=(3e-7, 1e-5),
        metrics=_TAGGED_METRICS,
        logged=_TAGGED_METRICS,
    ),
    "ppo": TrainingStage(None, logged=("reward",), is_planned=False),
}
UNKNOWN_STAGE = TrainingStage(None, is_planned=False)
PREFERENCE_STAGES = ("dpo", "kto")
"""Stages that train a model on preferences without a reward model."""
WITHOUT_REFERENCE = ("orpo", "simpo")
"""Values of `pref_loss` with which stage dpo needs no second model."""


def rows_of(entry: Entry) -> DatasetRows:
    """The rows of a dataset by its entry in the registry."""
    if entry.get("ranking") is True:
        return PAIRS
    if KTO_TAG in strings(entry.get("columns")):
        return TAGGED
    return PLAIN


def stage_fits(stage: str, entry: Entry) -> bool:
    """True if LLaMA-Factory can train a dataset in a stage.

    Only rm and dpo take pairs. Marked answers go to their own stage, or to ppo, which reads questions alone.
    """
    rows = rows_of(entry)
    expected = TRAINING_STAGES.get(stage, UNKNOWN_STAGE).rows
    if PAIRS in (rows, expected):
        return rows == expected
    if rows == TAGGED:
        return expected == TAGGED or stage == "ppo"
    return expected != TAGGED


def stage_problem(stage: str, name: str, entry: Entry, place: str) -> Problem:
    """E434 for a dataset that the stage cannot train, with the edits that make them fit."""
    rows = rows_of(entry)
    fixes = [rows.edit, _("or name another dataset")]
    if rows == PLAIN and TRAINING_STAGES.get(stage, UNKNOWN_STAGE).rows == TAGGED:
        column = _('or add "{key}": "<column of true and false>" to the entry\'s `columns`', key=KTO_TAG)
        fixes.insert(1, column)
    if rows != PAIRS and stage in PAIRED:
        fixes.insert(1, _('or write "ranking": true into the entry of a dataset of pairs'))
    message = _(
        "found {stage}, and {name} holds {description}", stage=stage, name=name, description=rows.description
    )
    return Problem(UNFIT_STAGE, place, message, "stage", joined(fixes))
