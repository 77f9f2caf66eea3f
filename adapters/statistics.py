"""Statistics of adapters: sizes, norms and spectra of ΔW, cosine similarities, all from the factors."""

import functools
import itertools
import math
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

import numpy as np

from tuneyard.adapters import lowrank
from tuneyard.adapters.prefetch import prefetch
from tuneyard.adapters.provenance import read_provenance
from tuneyard.adapters.store import WRAPPED, Adapter, factors_by_expert, unwrapped
from tuneyard.core.documents import text_width
from tuneyard.core.errors import show_value
from tuneyard.core.language import tr

BINS = 61
REACH = 4.0  # histograms end at this many root mean squares
Matrix = list[list[float | None]]
SETTINGS = (
    ("type", "peft_type"), ("task", "task_type"), ("rank", "r"), ("alpha", "lora_alpha"),
    ("dropout", "lora_dropout"), ("bias", "bias"), ("target modules", "target_modules"),
)  # fmt: skip
COLUMNS = ("target", "modules", "rank", "scale", "A", "B", "parameters", "norm of ΔW", "effective rank")


@dataclass(frozen=True, slots=True)
class ModuleStatistics:
    """One module: its place, the sizes of its factors, and the norm and spectrum of its ΔW.

    The effective rank is exp of the entropy of the normalised singular values (Roy and Vetterli 2007). Of a
    DoRA module both are of s·B·A, before its rows are rescaled to `magnitude` (smallest, largest), since the
    rescaled ΔW needs the base. `experts` counts those of a bare parameter (else 0); its spectrum is that of
    all of them, as one block-diagonal matrix.
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
    experts: int = 0
    magnitude: tuple[float, float] | None = None


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

    `norm` is ‖ΔW‖ (Frobenius) over all modules, `parameters` the number of elements of all factors. `made_of`
    is the merge.json of a merged adapter.
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
    made_of: dict[str, Any] | None = None


def measure(adapter: Adapter, progress: Iterable[str], *, histograms: bool) -> AdapterStatistics:
    """Measure an adapter; `progress` gives its module paths, one after the other."""
    tensors = adapter.weights.tensors.values()
    modules = list(prefetch(functools.partial(_module, adapter), progress))
    return AdapterStatistics(
        name=adapter.name,
        digest=adapter.digest,
        sha256=adapter.weights_sha256,
        base=adapter.lora.base,
        dtypes=[dtype for dtype, _ in Counter(tensor.dtype for tensor in tensors).most_common()],
        tensors=len(tensors),
        bytes=sum(file.stat().st_size for file in adapter.files),
        full_tensors=adapter.full_tensors,
        config=adapter.lora.raw,
        modules=modules,
        parameters=sum(_factor_elements(module) for module in modules),
        norm=math.hypot(*(module.norm for module in modules)),
        histograms=_histograms(adapter) if histograms else [],
        made_of=read_provenance(adapter.folder),
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
        scales = one.lora.scale_of(path) * other.lora.scale_of(path)
        product += scales * lowrank.inner(one.factors(path), other.factors(path))
    for path in (path for path in one.parameters if path in other.parameters):
        mine, theirs = one.parameters[path], other.parameters[path]
        experts = {mine.rank // one.lora.rank, theirs.rank // other.lora.rank}
        if mine.sizes != theirs.sizes or len(experts) > 1:
            return None
        scales = one.lora.scale_of(unwrapped(path)) * other.lora.scale_of(unwrapped(path))
        pairs = zip(
            factors_by_expert(*one.factors(path), min(experts)),
            factors_by_expert(*other.factors(path), min(experts)),
            strict=True,
        )
        product += scales * sum(lowrank.inner(own, others) for own, others in pairs)
    return product / (norms[0] * norms[1]) if norms[0] and norms[1] else None


def _histograms(adapter: Adapter) -> list[Histogram]:
    """Return the distributions of the elements of each target's A and B, all layers together."""
    paths: dict[str, list[str]] = {}
    for path in adapter.paths:
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


def _factor_elements(module: ModuleStatistics) -> int:
    return module.rank * max(module.experts, 1) * (module.outputs + module.inputs)


def _module(adapter: Adapter, path: str) -> ModuleStatistics:
    scale = adapter.lora.scale_of(unwrapped(path))
    a, b = adapter.factors(path)
    if path in adapter.parameters:
        module = adapter.parameters[path]
        rank = adapter.lora.rank
        experts = module.rank // rank
        spectra = [lowrank.singular_values(*factors) for factors in factors_by_expert(a, b, experts)]
        values = scale * np.sort(np.concatenate(spectra))[::-1]
        target = f"experts ({path.count(WRAPPED) + 1})" if path.count(WRAPPED) else "experts"
    else:
        module = adapter.layout[path]
        rank, experts = module.rank, 0
        values = scale * lowrank.singular_values(a, b)
        target = path.rpartition(".")[2]
    number = re.search(r"\.(\d+)\.", path)
    shares = values[values > 0] / (values.sum() or 1.0)
    magnitude = None
    if adapter.lora.dora:
        norms = adapter.magnitude(path)
        magnitude = float(norms.min()), float(norms.max())
    return ModuleStatistics(
        path,
        int(number[1]) if number else None,
        target,
        module.kind,
        module.outputs,
        module.inputs,
        rank,
        scale,
        norm=float(np.sqrt((values**2).sum())),
        effective_rank=float(np.exp(-(shares * np.log(shares)).sum())) if len(shares) else 0.0,
        singular_values=values.tolist(),
        experts=experts,
        magnitude=magnitude,
    )


def text(measured: list[AdapterStatistics], cosines: Matrix) -> Iterator[str]:
    """Yield the lines of the report on several adapters; `cosines` are their pairwise cosine similarities."""
    for found in measured:
        yield from _adapter(found)
        yield ""
    if len(measured) > 1:
        names = [found.name for found in measured]
        yield tr("cosine similarity of ΔW (1: same direction, 0: orthogonal)")
        rows = [[name, *(_number(v) for v in row)] for name, row in zip(names, cosines, strict=True)]
        yield from _table(["", *names], rows)


def _table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> Iterator[str]:
    """Yield aligned lines: the first column to the left, the others to the right."""
    widths = [max(map(text_width, column)) for column in zip(header, *rows, strict=True)]
    for first, *others in (header, *rows):
        cells = [first + " " * (widths[0] - text_width(first))]
        for cell, width in zip(others, widths[1:], strict=True):
            cells.append(" " * (width - text_width(cell)) + cell)
        yield "  ".join(cells).rstrip()


def _adapter(found: AdapterStatistics) -> Iterator[str]:
    base = found.base or tr("not named")
    base = base if base.isprintable() else show_value(base)  # a terminal obeys what control characters say
    dtypes = "+".join(found.dtypes)
    told = "{name}  base {base}  {dtypes}  sha256 {sha256}"
    yield tr(told, name=found.name, base=base, dtypes=dtypes, sha256=found.sha256)
    told = (
        "{modules:,} modules  {tensors:,} tensors  {parameters:,} parameters  "
        "{bytes:,} bytes ({mebibytes} MiB)  norm of ΔW {norm:.4g}"
    )
    yield tr(
        told,
        modules=len(found.modules),
        tensors=found.tensors,
        parameters=found.parameters,
        bytes=found.bytes,
        mebibytes=math.ceil(found.bytes / 2**20 * 10) / 10,
        norm=found.norm,
    )
    settings = [f"{tr(name)} {_setting(found.config.get(key))}" for name, key in SETTINGS]
    yield tr("config: {settings}", settings=tr(", ").join(settings))
    if found.made_of:
        yield _merge_line(found.made_of)
    magnitudes = [module.magnitude for module in found.modules if module.magnitude]
    if magnitudes:
        told = (
            "DoRA: magnitudes from {low:.4g} to {high:.4g}. Norms and ranks below are of s·B·A. The whole "
            "ΔW needs the base (`tuneyard adapter fuse` is exact)."
        )
        low = min(smallest for smallest, _ in magnitudes)
        high = max(largest for _, largest in magnitudes)
        yield tr(told, low=low, high=high)
    if found.full_tensors:
        names = tr(", ").join(found.full_tensors)
        yield tr("saved in full (modules_to_save, bias): {names}", names=names)
    yield ""
    groups: dict[tuple[str, int, int], list[ModuleStatistics]] = {}
    for module in found.modules:
        groups.setdefault((module.target, module.outputs, module.inputs), []).append(module)
    yield from _table([tr(name) for name in COLUMNS], [_target(modules) for modules in groups.values()])
    norms = {(m.layer, m.target): m.norm for m in found.modules if m.layer is not None}
    if norms:
        yield ""
        yield tr("norm of ΔW by layer")
        targets = list(dict.fromkeys(target for _, target in norms))
        layers = sorted({layer for layer, _ in norms})
        rows = [[str(i), *(_number(norms.get((i, target))) for target in targets)] for i in layers]
        yield from _table([tr("layer"), *targets], rows)


def _merge_line(record: dict[str, Any]) -> str:
    """The method, the parameters and the weighted parts of a merged adapter."""
    method = record["method"]
    for name, value in record["parameters"].items():
        if value is not None:
            method += f" {name} {value:g}"
    parts = [f"{entry['name']} ({entry['weight']:g})" for entry in record["adapters"]]
    return tr("merged by {method} from {parts}", method=method, parts=tr(", ").join(parts))


def _setting(value: object) -> str:
    if isinstance(value, list):
        return " ".join(map(str, value))
    return tr("not given") if value is None else str(value)


def _target(modules: list[ModuleStatistics]) -> list[str]:
    one, rank = modules[0], _range([m.rank for m in modules])
    kind = ""
    if one.kind == "embedding":
        kind = tr(" (embedding)")
    if one.experts:
        kind = f" × {one.experts}"
    return [
        one.target + kind,
        str(len(modules)), rank, _range([m.scale for m in modules]),
        f"{rank}×{one.inputs}", f"{one.outputs}×{rank}",
        f"{sum(_factor_elements(m) for m in modules):,}",
        _range([m.norm for m in modules]), f"{median(m.effective_rank for m in modules):.1f}",
    ]  # fmt: skip


def _range(values: Sequence[float]) -> str:
    low, high = f"{min(values):.4g}", f"{max(values):.4g}"
    return low if low == high else f"{low}–{high}"


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.4g}"
