"""The figures that another tool gave to each answer: which of them says that it is correct, and their values.

The choice depends on names alone, never on values: two models of one dataset are judged by the same score.
"""

import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

from tuneyard.core.errors import ContentError, show_value
from tuneyard.core.language.message import _, joined
from tuneyard.eval.runs.scored_run import Record

Scores = dict[str, float | None]
"""Scores of one answer by name, the tool's main one first; None if the tool could not score it."""
GRADED = re.compile(r"bleu|rouge|f1|meteor|chrf|similarity|bertscore|perplexity", re.IGNORECASE)
"""Scores between right and wrong, which may be 0 in every row of a poor model."""
RIGHT_OR_WRONG = ("accuracy", "acc", "exact_match", "em", "extractive_match")
"""Scores that are 0 or 1 by their meaning, and decide before the main one of a tool that names none."""


def number_of(value: object) -> float | None:
    """A score as a number (true is 1), None for NaN, infinity or anything else."""
    if isinstance(value, bool | int | float):
        try:
            number = float(value)
        except OverflowError:
            return None
        if math.isfinite(number):
            return number
    return None


def numbers_of(scores: Mapping[str, object]) -> Scores:
    """The numbers of an object of scores; an object inside has its names behind a dot. Texts are left out."""
    numbers: Scores = {}
    for name, value in scores.items():
        if isinstance(value, Mapping):
            for inner_name, inner in value.items():
                if inner is None or isinstance(inner, bool | int | float):
                    numbers[f"{name}.{inner_name}"] = number_of(inner)
        elif value is None or isinstance(value, bool | int | float):
            numbers[name] = number_of(value)
    return numbers


def with_main_score(scores: Scores, main: str = "") -> Scores:
    """The scores with the deciding one first: `main` if the tool names it, or one that is right or wrong."""
    for name in (main, *RIGHT_OR_WRONG):
        if name in scores:
            return {name: scores[name], **scores}
    return scores


def score_names(records: Sequence[Record]) -> tuple[str, list[str]]:
    """The name of the main score, and the names of all others. `ContentError` if no row has a score."""
    names = list(dict.fromkeys(name for record in records for name in record["scores"]))
    if not names:
        raise ContentError(_("{place}: no score, expected one for each example", place=records[0]["place"]))
    main, *others = names
    return main, others


def judged_by_a_score(records: Sequence[Record], main: str, others: Sequence[str]) -> list[Record]:
    """The records with `correct` from the main score: 1 is correct, 0 is not.

    `ContentError` if a row lacks the score or has another value. `--metric` compares such scores.
    """
    judged: list[Record] = []
    for record in records:
        value = record["scores"].get(main)
        place = record["place"]
        if value is None:
            reason = record.get("unscored")
            because = f" ({show_value(reason)})" if reason else ""
            raise ContentError(
                _(
                    "{place}: no score {main}{because}, expected 0 or 1 in every row; complete the run "
                    "with its tool, or leave out rows without the score: --metric {main}",
                    place=place,
                    main=main,
                    because=because,
                )
            )
        if value not in (0, 1) or GRADED.search(main):
            choices = joined([main, *others], _(" or "))
            raise ContentError(
                _(
                    "{place}: {name}: found {value}, expected a score of right (1) and wrong (0) in every "
                    "row: only such answers can be paired; compare the values: --metric {metric}",
                    place=place,
                    name=main,
                    value=show_value(value),
                    metric=choices,
                )
            )
        judged.append({**record, "correct": value == 1})
    return judged


def with_scores_as_fields(record: Record) -> Record:
    """The record with its scores as fields for `--metric`. One that is called as a field is `NAME_score`."""
    fields: dict[str, Any] = {name: value for name, value in record.items() if name != "scores"}
    for name, value in record["scores"].items():
        if value is not None:
            fields[f"{name}_score" if name in record else name] = value
    return fields


def chat_text(content: object) -> str:
    """The texts of a message, or of a list of messages or their parts, without thoughts and images.

    >>> chat_text([{"role": "user", "content": [{"type": "text", "text": "Is 2 even?"}]}])
    'Is 2 even?'
    """
    if isinstance(content, str):
        return content
    if isinstance(content, Mapping):
        for name in ("content", "text"):
            if name in content:
                return chat_text(content[name])
        return ""
    if isinstance(content, Sequence):
        texts = [chat_text(part) for part in content]
        return "\n".join(text for text in texts if text)
    return ""
