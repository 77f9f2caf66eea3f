"""The weight of an adapter in a sum: a number, or numbers by layer such as `0.5@0-11,0.2@12-23`."""

import contextlib
import math
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

from tuneyard.adapters.model.adapter import Adapter, layer_of
from tuneyard.core.documents import LARGEST
from tuneyard.core.errors import RequestError, show_value
from tuneyard.core.language.message import _
from tuneyard.core.language.messages import warn_once

LIKE_PER_CENT = 10  # a weight as large is likelier a share in per cent


@dataclass(frozen=True, slots=True)
class LayerRange:
    """One weight for the layers from `first` to `last`, both included."""

    weight: float
    first: int
    last: int

    def __str__(self) -> str:
        """As a command line has it, e.g. `0.5@0-11`."""
        return f"{self.weight!r}@{self.first}-{self.last}"


@dataclass(frozen=True, slots=True)
class LayerWeights:
    """Weights by layer. Modules outside the ranges, and modules without a layer, have the weight 0."""

    ranges: tuple[LayerRange, ...]

    def __str__(self) -> str:
        """As a command line has it, e.g. `0.5@0-11,0.2@12-23`."""
        return ",".join(map(str, self.ranges))

    def __bool__(self) -> bool:
        """False if all weights are 0."""
        return bool(self.largest)

    @property
    def largest(self) -> float:
        """The weight of the largest magnitude, 0 if all are 0."""
        return max((each.weight for each in self.ranges), key=abs)

    def at(self, path: str) -> float:
        """The weight of a module, or of a tensor that is saved in full."""
        layer = layer_of(path)
        for each in self.ranges:
            if layer is not None and each.first <= layer <= each.last:
                return each.weight
        return 0.0


Weight = float | LayerWeights


def weight_text(weight: Weight | str) -> str:
    """A weight in a table or a plan, where six digits are enough for a number."""
    if isinstance(weight, float | int):
        return f"{weight:g}"
    return str(weight)


def parse_weight(text: str, reference: str) -> float:
    """Read a weight up to `LARGEST`; the `RequestError` for any other text names the adapter."""
    if "@" in text:
        raise RequestError(
            _(
                "{adapter}: weight {weight}: only `tuneyard adapter merge` takes weights by layer; "
                "merge first, and use the merged adapter here",
                adapter=reference,
                weight=show_value(text),
            )
        )
    weight = math.nan
    with contextlib.suppress(ValueError):
        weight = float(text)
    if not abs(weight) <= LARGEST:  # nan, or with larger ones the singular values of ΔW overflow
        example = text if text and Path(text).is_dir() else reference  # NAME=PATH without a weight
        raise RequestError(
            _(
                "{reference}: weight {text}: expected a number up to 9e15, as in {example}=0.5",
                reference=reference,
                text=show_value(text),
                example=example,
            )
        )
    if abs(weight) >= LIKE_PER_CENT:
        warn_once(
            _("{name}: weight {text}: the adapter {text} times; 50 % is 0.5", name=reference, text=text)
        )
    return weight


def parse_merge_weight(text: str, reference: str) -> Weight:
    """Read a number, or `WEIGHT@FIRST-LAST,…`; `RequestError` for other texts and for overlapping layers."""
    if "@" not in text:
        return parse_weight(text, reference)
    ranges = []
    for part in text.split(","):
        match = re.fullmatch(r"([^@]*)@([0-9]{1,6})(?:-([0-9]{1,6}))?", part.strip())
        if match is None:
            raise RequestError(
                _(
                    "{reference}: weight {part}: expected WEIGHT@FIRST-LAST, as in "
                    "{reference}=0.5@0-11,0.2@12-23",
                    reference=reference,
                    part=show_value(part),
                )
            )
        first = int(match[2])
        last = int(match[3] or first)
        if last < first:
            raise RequestError(
                _(
                    "{reference}: weight {part}: layer {first} comes after {last}; write "
                    "{match}@{last}-{first}",
                    reference=reference,
                    part=show_value(part),
                    first=first,
                    last=last,
                    match=match[1],
                )
            )
        ranges.append(LayerRange(parse_weight(match[1], reference), first, last))
    for one, other in pairwise(sorted(ranges, key=lambda each: each.first)):
        if other.first <= one.last:
            raise RequestError(
                _(
                    "{adapter}: layer {layer} has two weights, {one} and {other}; expected one for each "
                    "layer",
                    adapter=reference,
                    layer=other.first,
                    one=one,
                    other=other,
                )
            )
    return LayerWeights(tuple(ranges))


def layer_notes(adapter: Adapter, weights: LayerWeights) -> Iterator[str]:
    """Check weights by layer against an adapter's modules, and yield notes on those with the weight 0.

    `RequestError` if a range names no layer of the adapter.
    """
    layers = sorted(_layers(adapter.modules))
    for each in weights.ranges:
        if not any(each.first <= layer <= each.last for layer in layers):
            spans = f"{layers[0]}–{layers[-1]}" if layers else "none"
            raise RequestError(
                _(
                    "{adapter}: weight {weight}: the layers of the adapter are {layers}",
                    adapter=adapter.name,
                    weight=each,
                    layers=spans,
                )
            )
        if each.last > layers[-1]:
            yield _(
                "{adapter}: weight {weight}: the last layer of the adapter is {layer}",
                adapter=adapter.name,
                weight=each,
                layer=layers[-1],
            )
    outside = [path for path in adapter.modules if not weights.at(path)]
    if outside:
        yield _(
            "{adapter}: {number} of {total} modules have the weight 0",
            adapter=adapter.name,
            number=len(outside),
            total=len(adapter.modules),
        )


def _layers(paths: Iterable[str]) -> set[int]:
    numbers = {layer_of(path) for path in paths}
    return {number for number in numbers if number is not None}
