"""Several adapters with weights that belong together: parsed, opened, and refused where they do not fit."""

import math
import re
from collections import Counter
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path

from adapters.lowrank import WeightedFactors
from adapters.store import SAVES, Adapter, Module, open_adapter
from core.errors import ContentError, RequestError, show_value


@dataclass(frozen=True, slots=True)
class Part:
    """One adapter and the weight with which its ΔW counts."""

    adapter: Adapter
    weight: float


def parse_part(text: str) -> tuple[str, float]:
    """Return (reference, weight) of `REFERENCE=WEIGHT` or `REFERENCE:WEIGHT`; `RequestError` otherwise."""
    form = re.fullmatch(r"(.+)[=:](.*)", text, re.DOTALL)
    if form is None:
        example = f"{text.strip('=:') or 'rte'}=0.5"
        raise RequestError(f"{text!r}: expected NAME_OR_DIR=WEIGHT or NAME_OR_DIR:WEIGHT, e.g. {example}")
    return form[1], parse_weight(form[2], form[1])


def parse_weighted(text: str) -> tuple[str, float]:
    """Return (reference, weight) of `NAME_OR_DIR` (weight 1) or of what `parse_part` takes."""
    there = Path(text).is_dir() or (SAVES / text).is_dir()
    return (text, 1.0) if there or not re.search("[=:]", text) else parse_part(text)


def parse_size(text: str) -> int:
    """Return bytes of a size such as `500MB` or `5GB` (powers of ten); `RequestError` where it is none."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*(KB|MB|GB)", text.strip(), re.IGNORECASE)
    size = float(match[1]) * {"KB": 10**3, "MB": 10**6, "GB": 10**9}[match[2].upper()] if match else 0
    if not 1 <= size < math.inf:
        raise RequestError(f"{text!r}: expected a size such as 500MB or 5GB")
    return int(size)


def parse_weight(value: object, reference: str) -> float:
    """Return a finite weight; `RequestError` names the adapter whose weight is none."""
    try:
        weight = float(value) if isinstance(value, str | int | float) else math.nan
    except ValueError:
        weight = math.nan
    if isinstance(value, bool) or not math.isfinite(weight):
        raise RequestError(f"{reference}: weight {show_value(value)}: expected a finite number")
    return weight


def open_parts(wanted: Iterable[tuple[str, float]]) -> list[Part]:
    """Open each adapter and check that all can be added: same revision, same shapes, same layers.

    Whether their bases are the same is `check_one_base`'s, or that of the base that is given.
    """
    parts = [Part(open_adapter(reference), weight) for reference, weight in wanted]
    if not parts:
        raise RequestError("no adapters given; expected NAME_OR_DIR=WEIGHT …")
    if not any(part.weight for part in parts):
        raise RequestError("all weights are 0: nothing would be left")
    for one, other in combinations((part.adapter for part in parts), 2):
        _same_revision(one, other)
        _same_shapes(one, other)
        _same_layers(one, other)
    return parts


def active(parts: Iterable[Part]) -> list[Part]:
    """Return the parts whose weight is not 0: only they take up rank."""
    return [part for part in parts if part.weight]


def union(parts: Iterable[Part]) -> dict[str, Module]:
    """Return every module that some part adapts, in the first order seen; its rank is the sum of theirs."""
    found: dict[str, Module] = {}
    for part in parts:
        for path, module in part.adapter.layout.items():
            rank = module.rank + (found[path].rank if path in found else 0)
            found[path] = Module(module.kind, module.outputs, module.inputs, rank)
    return found


def factors_of(parts: Iterable[Part], path: str) -> WeightedFactors:
    """Read the factors of one module from every part that has it, each with weight times scale."""
    adapters = [(part.adapter, part.weight) for part in parts if path in part.adapter.layout]
    pairs = [adapter.factors(path) for adapter, _ in adapters]
    return WeightedFactors(pairs, [weight * adapter.scale(path) for adapter, weight in adapters])


@contextmanager
def hashed(parts: Iterable[Part]) -> Iterator[None]:
    """Work out the digests of all adapters, which cards name, on a thread beside what the block does."""
    pool = ThreadPoolExecutor(1)
    try:
        for part in parts:
            pool.submit(getattr, part.adapter, "digest")
        yield
    finally:
        pool.shutdown(cancel_futures=True)


def notes(parts: list[Part]) -> Iterator[str]:
    """Yield what a user should know although it stops nothing."""
    unnamed = [part.adapter.name for part in parts if part.adapter.base is None]
    if unnamed and len(parts) > 1:
        yield f"not checked: {', '.join(unnamed)} names no base model"
    folders = Counter(part.adapter.folder.resolve() for part in active(parts))
    for folder, count in folders.items():
        if count > 1:
            total = sum(part.weight for part in parts if part.adapter.folder.resolve() == folder)
            yield f"{folder.name} stands {count} times: its weights add up to {total:g}"
    heads = (path for part in active(parts) for path in sorted(part.adapter.folder.glob("value_head.*")))
    for head in heads:
        yield f"left out: {head}, the value head of a reward model, which the result does not hold"
    skipped = [part.adapter.name for part in parts if not part.weight]
    if skipped:
        yield f"weight 0: {', '.join(skipped)} left out"


def check_one_base(parts: Iterable[Part]) -> None:
    """Refuse adapters whose configs name different bases, where no base is given that could decide."""
    named = [part.adapter for part in parts if part.adapter.base]
    other = next((a for a in named if _model(str(a.base)) != _model(str(named[0].base))), None)
    if other:
        raise ContentError(
            f"different base models: {named[0].name} was trained on {named[0].base}, {other.name} on "
            f"{other.base}; where both are the same model, give it as --base DIR, which decides"
        )


def _same_revision(one: Adapter, other: Adapter) -> None:
    revisions = [adapter.config.get("revision") or "main" for adapter in (one, other)]
    if revisions[0] != revisions[1]:
        raise ContentError(
            f"different base revisions: {one.name} was trained on {revisions[0]}, "
            f"{other.name} on {revisions[1]}"
        )
    if one.lora.fan_in_fan_out != other.lora.fan_in_fan_out:
        raise ContentError(f"fan_in_fan_out differs between {one.name} and {other.name}: not the same layers")


def _model(name: str) -> str:
    return str(Path(name).resolve()) if Path(name).exists() else name.rstrip("/")


def _same_shapes(one: Adapter, other: Adapter) -> None:
    for path, module in other.layout.items():
        known = one.layout.get(path, module)
        if (known.kind, known.outputs, known.inputs) != (module.kind, module.outputs, module.inputs):
            raise ContentError(
                f"different base models: {path} is {known.kind} {known.outputs}×{known.inputs} "
                f"in {one.name}, {module.kind} {module.outputs}×{module.inputs} in {other.name}"
            )


def _same_layers(one: Adapter, other: Adapter) -> None:
    """Refuse when both take a module by its plain name and one file lacks it in some layer."""
    for have, lack in ((one, other), (other, one)):
        with lack.lora.bounded():
            missing = next((p for p in have.layout if p not in lack.layout and lack.lora.targets(p)), None)
        if missing:
            raise ContentError(
                f"{lack.weights.path}: {missing} is missing: its config targets it, and {have.name} has it"
            )
