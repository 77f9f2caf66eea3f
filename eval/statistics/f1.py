"""Macro-F1 of several models on the same rows, and its uncertainty by the cluster bootstrap.

Macro-F1 is not a mean over rows. Its errors, those of differences and their correlations come from the same
bootstrap samples for all models.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from tuneyard.eval.statistics.rates import SEED, Z95, Groups, Mean, by_cluster, resample, wilson
from tuneyard.eval.statistics.spread import Floats, Spread, satterthwaite, student_deviate

DRAWS = 2_000
RARE = 5  # with fewer examples of a label, its F1 is very uncertain


@dataclass(frozen=True, slots=True)
class MacroF1:
    """Macro-F1 of models: the values [models], those of bootstrap samples [draws, models], and more.

    `shares` is the share of each unit (a cluster or a row) in the rows. `rows` is the largest effective
    number of rows: that of a mean of the labels' shares.
    """

    models: Sequence[str]
    values: Floats
    drawn: Floats
    shares: Floats
    n: int
    rows: float

    def spread(self, pairs: Sequence[tuple[str, str]] = ()) -> Spread:
        """Uncertainty of the differences between (old, new) models, or of the models' own values."""
        values, drawn = self.values, self.drawn
        if pairs:
            old = [self.models.index(model) for model, _unused in pairs]
            new = [self.models.index(model) for _unused, model in pairs]
            values, drawn = values[new] - values[old], drawn[:, new] - drawn[:, old]
        centred = drawn - drawn.mean(axis=0)
        squares = (centred**2).mean(axis=0)
        skew = np.divide(
            (centred**3).mean(axis=0), squares**1.5, out=np.zeros_like(squares), where=squares > 0
        )
        squared_shares = (self.shares**2).sum()
        if squared_shares >= 1:  # a single unit
            return Spread(values, centred, np.full(len(values), math.inf), np.ones(len(values)), skew)
        influence = centred / math.sqrt(len(drawn) * (1 - squared_shares))
        freedom = np.full(len(values), satterthwaite(self.shares[:, None])[0])
        return Spread(values, influence, np.sqrt(squares / (1 - squared_shares)), freedom, skew)

    def figures(self) -> dict[str, Mean]:
        """Each model's macro-F1 with the interval of a share that has its error (Wilson)."""
        spread = self.spread()
        reach = student_deviate(Z95, spread.freedom)
        figures = {}
        for place, model in enumerate(self.models):
            value, error = float(self.values[place]), float(spread.error[place])
            if math.isinf(error):
                figures[model] = Mean(value, 0.0, 1.0, self.n, 0.0)
                continue
            rows = self.rows
            if error:
                rows = min(rows, value * (1 - value) / error**2)
            low, high = wilson(value * rows, rows, float(reach[place]))
            figures[model] = Mean(value, low, high, self.n, error)
        return figures


def macro_f1s(
    gold: Sequence[str],
    predicted: Mapping[str, Sequence[str]],
    groups: Groups,
    stream: int = 0,
) -> MacroF1:
    """Macro-F1 of models by their predicted labels. Another `stream` draws other samples."""
    labels = sorted(set(gold))
    expected = np.array(gold)[:, None] == labels
    cells = []
    for answers in predicted.values():
        answered = np.array(answers)[:, None] == labels
        cells.append(np.stack([expected & answered, expected.astype(int) + answered], axis=1))
    counts = by_cluster(np.stack(cells, axis=1).astype(np.int64), groups)  # [units, models, 2, labels]
    shape = counts.shape[1:]
    drawn = resample(counts.reshape(len(counts), -1), DRAWS, SEED + stream).reshape(-1, *shape)
    whole_and_drawn = np.concatenate([counts.sum(axis=0)[None], drawn])
    hits, mentions = whole_and_drawn[..., 0, :], whole_and_drawn[..., 1, :]
    f1 = np.divide(2 * hits, mentions, out=np.zeros(hits.shape), where=mentions > 0)
    values = f1.sum(axis=-1) / np.maximum(1, (mentions > 0).sum(axis=-1))  # of the labels that are mentioned
    sizes = by_cluster(np.ones(len(gold)), groups)
    rows_of_label = by_cluster(expected.astype(np.int64), groups).sum(axis=0)
    rows = len(labels) ** 2 / float((1 / rows_of_label).sum())
    return MacroF1(list(predicted), values[0], values[1:], sizes / len(gold), len(gold), rows)


def mean_f1(datasets: Sequence[MacroF1], models: Sequence[str]) -> MacroF1:
    """The mean over datasets, each counting alike, of the models that have all of them."""
    places = [[one.models.index(model) for model in models] for one in datasets]
    values = np.mean([one.values[place] for one, place in zip(datasets, places, strict=True)], axis=0)
    drawn = np.mean([one.drawn[:, place] for one, place in zip(datasets, places, strict=True)], axis=0)
    shares = np.concatenate([one.shares / len(datasets) for one in datasets])
    return MacroF1(models, values, drawn, shares, sum(one.n for one in datasets), math.nan)
