"""`eval sweep --search N`: merge weights of three and more adapters, proposed by Optuna.

The method is the tree-structured Parzen estimator (Bergstra et al. 2011) of optuna.samplers.TPESampler. The
same seed and figures give the same proposals, so that a resumed search finds its points already scored.
"""

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING

from tuneyard.core.errors import RequestError, need
from tuneyard.core.language.message import _, joined
from tuneyard.eval.sweep.points import Axes, Point

if TYPE_CHECKING:
    from optuna import Study
    from optuna.trial import Trial

LARGEST_WEIGHT = 1.5
DIGITS = 2
"""Decimal places of a weight. Finer ones make no difference that some hundred examples show."""
MOST_REPEATS = 100
"""So many proposals in a row that are already scored end a search early."""


class WeightSearch:
    """Proposes one point after another. It minimises ranks: figures of models, the smallest best."""

    def __init__(self, axes: Axes, points: int, seed: int) -> None:
        """Check the request; `first` has the points that are scored before any is proposed."""
        need("optuna")
        count = len(axes.adapters)
        if count < 2:
            raise RequestError(_("--search: expected two or more --adapter, whose weights it can search"))
        alone = [tuple(float(one == other) for other in range(count)) for one in range(count)]
        equal = (round(1 / count, DIGITS),) * count
        self.first = axes.with_points([*alone, equal])
        if points < len(self.first.points):
            least, names = len(self.first.points), joined(self.first.points)
            raise RequestError(
                _(
                    "--search {points}: expected {least} or more, since the first points are {names}",
                    points=points,
                    least=least,
                    names=names,
                )
            )
        self.points = points
        self.seed = seed
        self._study: Study | None = None
        self._waiting: tuple[Trial, Point] | None = None

    def extended(self, axes: Axes, ranks: Mapping[str, float]) -> Axes:
        """The axes with one more point, or as they are at the end of the search.

        `ranks` has every model of the axes. Call it once for each point.
        """
        models = {point: model for model, point in axes.points.items()}
        study = self._study = self._study or self._new_study(ranks)
        if self._waiting is not None:
            trial, point = self._waiting
            _tell(study, trial, ranks[models[point]])
            self._waiting = None
        if len(axes.points) >= self.points:
            return axes
        for _unused in range(MOST_REPEATS):
            trial = study.ask()
            weights = [trial.suggest_float(name, 0.0, LARGEST_WEIGHT) for name in axes.names]
            point = tuple(round(weight, DIGITS) for weight in weights)
            if any(point) and point not in models:
                self._waiting = trial, point
                return axes.with_points([point])
            _tell(study, trial, ranks[models[point]] if point in models else math.nan)
        return axes

    def _new_study(self, ranks: Mapping[str, float]) -> "Study":
        """A study that has the figures of the first points."""
        import optuna

        optuna.logging.set_verbosity(optuna.logging.WARNING)
        study = optuna.create_study(sampler=optuna.samplers.TPESampler(seed=self.seed))
        weight = optuna.distributions.FloatDistribution(0.0, LARGEST_WEIGHT)
        for model, point in self.first.points.items():
            if not math.isnan(ranks[model]):
                weights = dict(zip(self.first.names, point, strict=True))
                distributions = dict.fromkeys(weights, weight)
                study.add_trial(
                    optuna.create_trial(params=weights, distributions=distributions, value=ranks[model])
                )
        return study


def _tell(study: "Study", trial: "Trial", rank: float) -> None:
    """Give a trial its figure. Without one it has failed."""
    from optuna.trial import TrialState

    if math.isnan(rank):
        study.tell(trial, state=TrialState.FAIL)
    else:
        study.tell(trial, rank)
