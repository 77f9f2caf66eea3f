"""Statistics of adapters: sizes, norms and spectra of ΔW, cosine similarities, all from the factors."""

import functools
import itertools
import math
import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from adapters import lowrank
from adapters.prefetch import prefetch
from adapters.store import Adapter

BINS = 61
REACH = 4.0  # histograms end at this many root mean squares


@dataclass(frozen=True, slots=True)
class ModuleStatistics:
    """One module: its place, the sizes of its factors, and the norm and spectrum of its ΔW.

    The effective rank is exp of the entropy of the normalised singular values (Roy and Vetterli 2007).
    """

    path: str
    layer: int | None
    target: str
    kind: str
    outputs: int
    inputs: int
    rank: int
    scale: float
    norm: float
    effective_rank: float
    singular_values: list[float]


@dataclass(frozen=True, slots=True)
class Histogram:
    """Counts of values in even bins from −`reach` to `reach`; what lies beyond is in the outer bins."""

    target: str
    side: str
    reach: float
    counts: list[int]


@dataclass(frozen=True, slots=True)
class AdapterStatistics:
    """One adapter with its adapter_config.json and all its modules; `bytes` is the weights file's size.

    `norm` is ‖ΔW‖ (Frobenius) over all modules, `parameters` the number of elements of all factors.
    """

    name: str
    digest: str
    sha256: str
    base: str | None
    dtypes: list[str]
    tensors: int
    bytes: int
    full_tensors: list[str]
    config: dict[str, object]
    modules: list[ModuleStatistics]
    parameters: int
    norm: float
    histograms: list[Histogram]


def measure(adapter: Adapter, progress: Iterable[str], *, histograms: bool) -> AdapterStatistics:
    """Measure an adapter; `progress` gives its module paths, one after the other."""
    tensors = adapter.weights.tensors.values()
    modules = list(prefetch(functools.partial(_module, adapter), progress))
    return AdapterStatistics(
        name=adapter.name,
        digest=adapter.digest,
        sha256=adapter.weights_sha256,
        base=adapter.base,
        dtypes=[dtype for dtype, _ in Counter(tensor.dtype for tensor in tensors).most_common()],
        tensors=len(tensors),
        bytes=sum(file.stat().st_size for file in adapter.files),
        full_tensors=adapter.full_tensors,
        config=adapter.config,
        modules=modules,
        parameters=sum(m.rank * (m.outputs + m.inputs) for m in modules),
        norm=math.hypot(*(module.norm for module in modules)),
        histograms=_histograms(adapter) if histograms else [],
    )


def similarity(one: Adapter, other: Adapter, norms: tuple[float, float]) -> float | None:
    """Return ⟨ΔW₁, ΔW₂⟩ / (‖ΔW₁‖·‖ΔW₂‖) over all modules; None where shapes or zero norms forbid it.

    `norms` are those of the whole ΔW₁ and ΔW₂: a module that only one of them has meets zero.
    """
    product = 0.0
    for path in (path for path in one.layout if path in other.layout):
        mine, theirs = one.layout[path], other.layout[path]
        if mine.sizes != theirs.sizes:
            return None
        scales = one.scale(path) * other.scale(path)
        product += scales * lowrank.inner(one.factors(path), other.factors(path))
    return product / (norms[0] * norms[1]) if norms[0] and norms[1] else None


def _histograms(adapter: Adapter) -> list[Histogram]:
    """Return for each target the distribution of the elements of its A and of its B, all layers together."""
    paths: dict[str, list[str]] = {}
    for path in adapter.modules:
        paths.setdefault(path.rpartition(".")[2], []).append(path)
    found = []
    for (target, own), (i, side) in itertools.product(paths.items(), enumerate("AB")):
        factors = [adapter.factors(path)[i] for path in own]
        squares = sum(float(np.vdot(f, f)) for f in factors)
        reach = REACH * math.sqrt(squares / sum(f.size for f in factors)) or 1.0
        counts = np.zeros(BINS, np.int64)
        for factor in factors:
            places = factor.reshape(-1) * np.float32(BINS / 2 / reach) + np.float32(BINS / 2)
            counts += np.bincount(np.clip(places, 0, BINS - 1).astype(np.intp), minlength=BINS)
        found.append(Histogram(target, side, reach, counts.tolist()))
    return found


def _module(adapter: Adapter, path: str) -> ModuleStatistics:
    found, scale = adapter.layout[path], adapter.scale(path)
    values = scale * lowrank.singular_values(*adapter.factors(path))
    number, target = re.search(r"\.(\d+)\.", path), path.rpartition(".")[2]
    layer = int(number[1]) if number else None
    shares = values[values > 0] / (values.sum() or 1.0)
    return ModuleStatistics(
        path, layer, target, found.kind, found.outputs, found.inputs, found.rank, scale,
        norm=float(np.sqrt((values**2).sum())),
        effective_rank=float(np.exp(-(shares * np.log(shares)).sum())) if len(shares) else 0.0,
        singular_values=values.tolist(),
    )  # fmt: skip
