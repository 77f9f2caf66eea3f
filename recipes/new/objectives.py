"""What `recipe new --stage` can train a dataset for, and the learning rates to begin with."""

from typing import NamedTuple

from tuneyard.core.language.message import _
from tuneyard.core.llamafactory.stages import PLAIN, TRAINING_STAGES, rows_of
from tuneyard.core.records import Entry, format_of_entry


class LearningRate(NamedTuple):
    """A learning rate to begin with, and where it was published."""

    rate: float
    source: str


class Objective(NamedTuple):
    """What `recipe new --stage` takes: a stage of LLaMA-Factory, for stage dpo with its `pref_loss`.

    `adapter_rate` and `weight_rate` are within the ranges of the stage (docs/recipes.md).
    """

    stage: str
    adapter_rate: LearningRate
    weight_rate: LearningRate
    pref_loss: str = ""


def _example(file: str) -> str:
    return _("LLaMA-Factory's {file}", file=file)


_DPO_EXAMPLE = LearningRate(5e-6, _example("qwen3_lora_dpo.yaml"))
OBJECTIVES = {
    "pt": Objective(
        "pt",
        LearningRate(1e-4, _example("qwen3_lora_pretrain.yaml")),
        LearningRate(5e-5, "transformers' run_clm.py"),
    ),
    "sft": Objective(
        "sft",
        LearningRate(1e-4, _example("qwen3_lora_sft.yaml")),
        LearningRate(1e-5, _example("qwen3_full_sft.yaml")),
    ),
    "dpo": Objective("dpo", _DPO_EXAMPLE, LearningRate(5e-7, "Zephyr"), "sigmoid"),
    "orpo": Objective("dpo", _DPO_EXAMPLE, LearningRate(8e-6, "TRL's orpo.py"), "orpo"),
    "simpo": Objective("dpo", _DPO_EXAMPLE, LearningRate(5e-7, _("the SimPO paper")), "simpo"),
    "rm": Objective(
        "rm",
        LearningRate(1e-4, _example("qwen3_lora_reward.yaml")),
        LearningRate(9e-6, "OpenRLHF"),
    ),
    "kto": Objective(
        "kto",
        LearningRate(5e-6, _example("qwen3_lora_kto.yaml")),
        LearningRate(5e-7, "TRL's kto.py"),
    ),
}
"""Objectives by the name that users write. Of several that fit a dataset the first is the default."""


def objectives_of(entry: Entry) -> list[str]:
    """Names of the objectives that fit a dataset's rows; the first is the default.

    LLaMA-Factory also trains plain answers in stage pt, but then it learns their questions alone.
    """
    rows = rows_of(entry)
    if rows == PLAIN:
        return ["pt"] if format_of_entry(entry).text_only else ["sft"]
    return [name for name, objective in OBJECTIVES.items() if TRAINING_STAGES[objective.stage].rows == rows]
