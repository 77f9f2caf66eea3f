"""The warnings of commands without an accuracy, if nothing in a run is right."""

import pytest

from tuneyard.eval.ab.__main__ import Ab
from tuneyard.eval.figures.preference import AUC
from tuneyard.eval.preference import Marked
from tuneyard.eval.scoring.request import ScoringRequest
from tuneyard.eval.text import Text

COUNTS = {"too_long": 0, "n": 4}
OF_TEXTS = {**COUNTS, "truncation_rate": 0.0, "generated": 4}


def words_of(evaluation: object, **results: object) -> list[str]:
    return type(evaluation).warnings(evaluation, results)


@pytest.mark.parametrize(
    ("figures", "begin"),
    [
        ({"empty_rate": 1.0, "rouge1": 0.0}, "no answer has a text"),
        ({"empty_rate": 1.0}, "no answer has a text"),
        ({"empty_rate": 0.5, "rouge1": 0.0}, "no answer has a word of its reference"),
        ({"empty_rate": 0.5, "rouge1": 0.01}, None),
        ({"empty_rate": 0.5}, None),
    ],
)
def test_generated_texts(figures, begin) -> None:
    warnings = words_of(object.__new__(Text), **OF_TEXTS, **figures)
    assert [text.startswith(str(begin)) for text in warnings] == [True] * (begin is not None)


@pytest.mark.parametrize(("empty", "count"), [(4, 1), (3, 0)])
def test_answers_side_by_side(empty, count) -> None:
    evaluation = Ab(ScoringRequest("m", None), 1, ["s"])
    assert len(words_of(evaluation, **COUNTS, empty=empty)) == count


@pytest.mark.parametrize(("area", "count"), [({"value": 0.0}, 1), ({"value": 0.1}, 0), (None, 0)])
def test_marked_answers(area, count) -> None:
    assert len(words_of(Marked({}), **COUNTS, **{AUC: area})) == count
