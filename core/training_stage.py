"""Which stages can train a dataset: the rule of `recipe check` and `data verify --recipe` (E434)."""

from collections.abc import Mapping

from tuneyard.core.answers import PAIRED
from tuneyard.core.errors import Problem
from tuneyard.core.prompt import strings

ROWS = {
    "rm": "preference pairs (`ranking: true`)",
    "kto": "answers marked as wanted or not (`kto_tag`)",
    "sft": "plain answers, neither pairs nor marked ones",
}
"""The rows of a dataset by the stage that they are for (`stage_of_rows`)."""
FITTING = {
    "rm": "write `stage: dpo` or `stage: rm`",
    "kto": "write `stage: kto`",
    "sft": "write `stage: sft`",
}
"""The edit of the recipe that fits the rows."""


def stage_of_rows(entry: Mapping[str, object]) -> str:
    """The stage that a dataset's rows are for, as LLaMA-Factory's loader names it: dpo reads rows of rm."""
    if entry.get("ranking") is True:
        return "rm"
    if "kto_tag" in strings(entry.get("columns")):
        return "kto"
    return "sft"


def stage_fits(stage: str, entry: Mapping[str, object]) -> bool:
    """Whether LLaMA-Factory can train a dataset in a stage: only rm and dpo take pairs, only kto marks."""
    rows = stage_of_rows(entry)
    if stage in PAIRED or rows == "rm":
        return stage in PAIRED and rows == "rm"
    if stage == "kto" or rows == "kto":
        return stage in ("kto", "ppo") and rows == "kto"
    return True


def stage_problem(stage: str, name: str, entry: Mapping[str, object], place: str) -> Problem:
    """E434 for a dataset that the stage cannot train, with the edits that make them fit."""
    rows = stage_of_rows(entry)
    fixes = [FITTING[rows], "or name another dataset"]
    if rows == "sft" and stage == "kto":
        fixes.insert(1, 'or add "kto_tag": "<column of true and false>" to the entry\'s `columns`')
    if rows != "rm" and stage in PAIRED:
        fixes.insert(1, 'or write "ranking": true into the entry of a dataset of pairs')
    message = f"found {stage}, and {name} holds {ROWS[rows]}"
    return Problem("E434", place, message, "stage", ", ".join(fixes))
