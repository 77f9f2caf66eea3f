"""The points of a sweep: merge weights of adapters, or the checkpoints of a run.

Without given weights a sweep searches them: `COARSE` weights first, then steps of `FINE` around the best.
"""

import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from tuneyard.adapters.model.weighted import WeightedAdapter
from tuneyard.core.errors import RequestError
from tuneyard.core.files import read_object
from tuneyard.core.language.message import _
from tuneyard.core.weights.adapter_files import CONFIG
from tuneyard.eval.runs.results import BASE
from tuneyard.eval.runs.sweeps import STEP
from tuneyard.eval.scoring.candidates import Adapters, open_adapters
from tuneyard.eval.scoring.request import ScoringRequest

COARSE = (0.0, 0.5, 1.0)
FINE = 0.25
MOST_POINTS = 25
TRAINER_STATE = "trainer_state.json"
Point = tuple[float, ...]


@dataclass(frozen=True, slots=True)
class Axes:
    """Every model of a sweep: its point on the axes, and its weighted adapters, in the order of the points.

    `adapters` are those whose weights are the axes. A run's checkpoints have none.
    """

    reference: str
    names: Sequence[str]
    points: Mapping[str, Point]
    models: Mapping[str, Adapters]
    adapters: Mapping[str, Adapters] = field(default_factory=dict)

    def with_points(self, points: Iterable[Point]) -> "Axes":
        """Add points, each with its model. All weights 0 are the base."""
        points_by_model = {}
        models = {}
        for point in sorted({*self.points.values(), *points}):
            model, weighted_adapters = self._model_at(point)
            points_by_model[model] = point
            models[model] = self.models.get(model, weighted_adapters)
        return replace(self, points=points_by_model, models=models)

    def refined(self, best: str) -> "Axes":
        """Add the points around the best one that are missing, up to `MOST_POINTS` in all.

        Weights may grow beyond 1 if the best point is at that edge. They do not become negative. The points
        that differ in one weight come first.
        """
        room = MOST_POINTS - len(self.points)
        scored = set(self.points.values())
        missing = [point for point in _around(self.points[best]) if point not in scored and any(point)]
        return self.with_points(missing[:room])

    def alone(self) -> dict[str, Adapters]:
        """The base (without it, the first point), and each adapter alone."""
        first = next(iter(self.models))
        return {first: self.models[first], **self.adapters}

    def without(self, others: "Axes") -> Mapping[str, Adapters]:
        """The models that the other axes lack."""
        return {name: model for name, model in self.models.items() if name not in others.models}

    def _model_at(self, point: Point) -> tuple[str, Adapters]:
        """Name and weighted adapters of the model at a point. An adapter of weight 0 is left out.

        An adapter alone at weight 1 has its own name.
        """
        if not any(point):
            return BASE, ()
        if sum(map(bool, point)) == 1 and max(point) == 1:
            name = list(self.adapters)[point.index(1)]
            return name, self.adapters[name]
        weighted: list[WeightedAdapter] = []
        coordinates = []
        for weight, (name, weighted_adapters) in zip(point, self.adapters.items(), strict=True):
            coordinates.append(f"{name}={weight:g}")
            if weight:
                weighted += [WeightedAdapter(one.adapter, weight * one.weight) for one in weighted_adapters]
        return ",".join(coordinates), tuple(weighted)


def _around(point: Point) -> Iterator[Point]:
    """The points `FINE` away in one weight, then those in several; none has a negative weight."""
    steps = itertools.product((-FINE, 0.0, FINE), repeat=len(point))
    for step in sorted(steps, key=lambda step: sum(map(bool, step))):
        moved = tuple(weight + change for weight, change in zip(point, step, strict=True))
        if any(step) and min(moved) >= 0:
            yield moved


def weight_axes(request: ScoringRequest, weights: Iterable[float] = COARSE) -> Axes:
    """The base, and every combination of the weights: one axis for each of one or two adapters."""
    axes = adapter_axes(request)
    count = len(axes.adapters)
    if count > 2:
        raise RequestError(
            _(
                "{number} adapters: a grid takes one or two --adapter; search the weights of more "
                "with --search N, as in --search 30",
                number=count,
            )
        )
    if count == 0:
        raise RequestError(_("0 adapters: expected one or two --adapter, or --checkpoints DIR"))
    points = set(itertools.product(weights, repeat=count))
    points.discard((0.0,) * count)
    return axes.with_points(points)


def adapter_axes(request: ScoringRequest) -> Axes:
    """One axis for each adapter, with the base as the only point, or none if it is not scored."""
    reference, candidates = open_adapters(replace(request, no_base=False))
    adapters = {
        name: weighted_adapters for name, weighted_adapters in candidates.items() if weighted_adapters
    }
    axes = Axes(reference, list(adapters), {}, {}, adapters)
    if request.no_base:
        return axes
    return axes.with_points([(0.0,) * len(adapters)])


def checkpoint_axes(request: ScoringRequest, folder: Path) -> Axes:
    """The base (step 0), every checkpoint of a run, and its end if no checkpoint has that step."""
    if request.adapters:
        raise RequestError(_("--checkpoints takes the adapters of the run: leave --adapter out"))
    folders: dict[int, Path] = {}
    for config in folder.glob(f"checkpoint-*/{CONFIG}"):
        number = config.parent.name.split("-")[1]
        if number.isdigit():
            folders[int(number)] = config.parent
    last = None
    if (folder / TRAINER_STATE).is_file():
        last = read_object(folder / TRAINER_STATE).get("global_step")
    if isinstance(last, int) and last not in folders and (folder / CONFIG).is_file():
        folders[last] = folder
    if not folders:
        raise RequestError(
            _(
                "{folder}: no checkpoint-N with an {name}: expected the output_dir of a LoRA run",
                folder=folder,
                name=CONFIG,
            )
        )
    steps = {f"step-{step}": step for step in sorted(folders)}
    adapters = tuple(f"{name}={folders[step]}/" for name, step in steps.items())
    reference, models = open_adapters(replace(request, adapters=adapters))
    points = {name: (float(steps.get(name, 0)),) for name in models}
    return Axes(reference, [STEP], points, models)
