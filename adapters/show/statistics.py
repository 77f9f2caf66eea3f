"""Statistics of adapters: sizes, norms and spectra of ΔW, cosine similarities, all from the factors."""

import math
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import numpy as np

from tuneyard.adapters.model import lowrank
from tuneyard.adapters.model.adapter import Adapter, ModuleStatistics, layer_of
from tuneyard.adapters.model.lora import LoraAdapter
from tuneyard.adapters.model.store import kind_of
from tuneyard.adapters.model.unlearned import places
from tuneyard.adapters.model.weights import weight_text
from tuneyard.core.errors import show_value
from tuneyard.core.language.message import counted, marked, tr
from tuneyard.core.text.markdown import markdown_table
from tuneyard.core.training.training_run import read_provenance
from tuneyard.core.weights.tensors import prefetch

BINS = 61
REACH = 4.0  # histograms end at this many root mean squares
Matrix = list[list[float | None]]
M = TypeVar("M", bound=ModuleStatistics)


@dataclass(frozen=True, slots=True)
class Histogram:
    """Counts of values in even bins from −`reach` to `reach`. The outer bins include all values beyond."""

    target: str
    side: str
    reach: float
    counts: list[int]


@dataclass(frozen=True, slots=True)
class AdapterStatistics(Generic[M]):
    """One adapter: its adapter_config.json (`config`), its modules and their totals.

    `bytes` is the size of the weights file, `norm` ‖ΔW‖ (Frobenius) over all modules or None if it needs the
    base, `parameters` the number of elements of all modules. `made_of` is the merge.json of a merged adapter.
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
    modules: list[M]
    parameters: int
    norm: float | None
    histograms: list[Histogram]
    made_of: dict[str, Any] | None = None


def measure(adapter: Adapter, progress: Iterable[str], *, histograms: bool) -> AdapterStatistics[Any]:
    """Measure an adapter; `progress` yields its module paths, one after another."""
    tensors = adapter.weights.tensors.values()
    dtypes = Counter(tensor.dtype for tensor in tensors)
    modules = list(prefetch(adapter.measure, progress))
    norms = [module.change_norm for module in modules if module.change_norm is not None]
    return AdapterStatistics(
        name=adapter.name,
        digest=adapter.digest,
        sha256=adapter.weights_sha256,
        base=adapter.config.base,
        dtypes=[dtype for dtype, _unused in dtypes.most_common()],
        tensors=len(tensors),
        bytes=sum(file.stat().st_size for file in adapter.files),
        full_tensors=adapter.full_tensors,
        config=adapter.config.raw,
        modules=modules,
        parameters=sum(module.parameters for module in modules),
        norm=math.hypot(*norms) if norms else None,
        histograms=_histograms(adapter) if histograms and isinstance(adapter, LoraAdapter) else [],
        made_of=read_provenance(adapter.folder),
    )


def similarity(one: Adapter, other: Adapter, norm: float | None, other_norm: float | None) -> float | None:
    """Cosine similarity ⟨ΔW₁, ΔW₂⟩ / (‖ΔW₁‖·‖ΔW₂‖) over all modules. None if shapes differ or a norm is 0.

    The norms are ‖ΔW₁‖ and ‖ΔW₂‖ of the whole adapters: a module of only one adapter counts as zero.
    """
    if not isinstance(one, LoraAdapter) or not isinstance(other, LoraAdapter):
        return None
    product = 0.0
    for path, module in one.modules.items():
        if path not in other.modules:
            continue
        if module.sizes != other.modules[path].sizes:
            return None
        scales = one.config.scale_of(path) * other.config.scale_of(path)
        product += scales * lowrank.inner(one.factors(path), other.factors(path))
    if not (norm and other_norm):
        return None
    return product / (norm * other_norm)


def _histograms(adapter: LoraAdapter) -> list[Histogram]:
    """Distribution of the elements of each target's A and B, all layers together."""
    paths_by_target: dict[str, list[str]] = {}
    for path in adapter.modules:
        paths_by_target.setdefault(path.rpartition(".")[2], []).append(path)
    histograms = []
    for target, paths in paths_by_target.items():
        for index, side in enumerate("AB"):
            factors = [adapter.factors(path)[index] for path in paths]
            squares = sum(float(np.vdot(factor, factor)) for factor in factors)
            elements = sum(factor.size for factor in factors)
            reach = REACH * math.sqrt(squares / elements) or 1.0
            counts = np.zeros(BINS, np.int64)
            for factor in factors:
                places = factor.reshape(-1) * np.float32(BINS / 2 / reach) + np.float32(BINS / 2)
                counts += np.bincount(np.clip(places, 0, BINS - 1).astype(np.intp), minlength=BINS)
            histograms.append(Histogram(target, side, reach, counts.tolist()))
    return histograms


def text(measured: list[AdapterStatistics[Any]], cosines: Matrix) -> Iterator[str]:
    """Yield the lines of the report on several adapters. `cosines` are their pairwise similarities."""
    for adapter in measured:
        yield from _adapter_lines(adapter)
        yield ""
    if len(measured) > 1:
        names = [adapter.name for adapter in measured]
        yield tr("cosine similarity of ΔW (1: same direction, 0: orthogonal)")
        rows = []
        for name, row in zip(names, cosines, strict=True):
            rows.append([name, *map(_number, row)])
        yield markdown_table(["", *names], rows)


def _adapter_lines(adapter: AdapterStatistics[Any]) -> Iterator[str]:
    base = adapter.base or tr("not named")
    if not base.isprintable():  # a terminal obeys control characters
        base = show_value(base)
    dtypes = "+".join(adapter.dtypes)
    heading = marked("{name}  base {base}  {dtypes}  sha256 {sha256}")
    yield tr(heading, name=adapter.name, base=base, dtypes=dtypes, sha256=adapter.sha256)
    totals = tr(
        "{modules}  {tensors}  {parameters}  {bytes:,} bytes ({mebibytes} MiB)",
        modules=counted(len(adapter.modules), "module", "modules"),
        tensors=counted(adapter.tensors, "tensor", "tensors"),
        parameters=counted(adapter.parameters, "parameter", "parameters"),
        bytes=adapter.bytes,
        mebibytes=math.ceil(adapter.bytes / 2**20 * 10) / 10,
    )
    if adapter.norm is not None:
        totals += f"  {tr('norm of ΔW')} {adapter.norm:.4g}"
    yield totals
    yield places([module.path for module in adapter.modules])
    kind = kind_of(adapter.config, adapter.name)
    settings = []
    for name, key in kind.SETTINGS:
        value = adapter.config.get(key)
        value_text = str(value)
        if isinstance(value, list):
            value_text = " ".join(map(str, value))
            if any(layer_of(f".{path}") is not None for path in value):
                value_text = places(value)
        elif value is None:
            value_text = tr("not given")
        settings.append(f"{tr(name)} {value_text}")
    yield tr("config: {settings}", settings=tr(", ").join(settings))
    if adapter.made_of:
        method = adapter.made_of["method"]
        for name, value in adapter.made_of["parameters"].items():
            if value is not None:
                method += f" {name} {value:g}"
        parts = [f"{entry['name']} ({weight_text(entry['weight'])})" for entry in adapter.made_of["adapters"]]
        yield tr("merged by {method} from {parts}", method=method, parts=tr(", ").join(parts))
    if adapter.full_tensors:
        sentence = marked("saved in full (modules_to_save, bias): {names}")
        yield tr(sentence, names=tr(", ").join(adapter.full_tensors))
    yield ""
    remark = kind.remark(adapter.modules)
    if remark:
        yield remark
    yield markdown_table([tr(name) for name in kind.COLUMNS], kind.rows(adapter.modules))
    norms = {(m.layer, m.target): m.change_norm for m in adapter.modules if m.layer is not None}
    if norms and adapter.norm is not None:
        yield ""
        yield tr("norm of ΔW by layer")
        targets = list(dict.fromkeys(target for _unused, target in norms))
        rows = []
        for layer in sorted({layer for layer, _unused in norms}):
            cells = [_number(norms.get((layer, target))) for target in targets]
            rows.append([str(layer), *cells])
        yield markdown_table([tr("layer"), *targets], rows)


def _number(value: float | None) -> str:
    if value is None:
        return "–"
    return f"{value:.4g}"
