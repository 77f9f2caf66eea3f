"""Statistics of adapters: sizes, norms and spectra of ΔW, cosine similarities, all from the factors."""

import functools
import math
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from statistics import median
from typing import Any

import numpy as np

from tuneyard.adapters import lowrank
from tuneyard.adapters.prefetch import prefetch
from tuneyard.adapters.provenance import read_provenance
from tuneyard.adapters.store import WRAPPED, Adapter, factors_by_expert, unwrapped
from tuneyard.core.documents import text_width
from tuneyard.core.errors import show_value
from tuneyard.core.language.translation import tr, tr_counted

BINS = 61
REACH = 4.0  # histograms end at this many root mean squares
Matrix = list[list[float | None]]
SETTINGS = (
    ("type", "peft_type"), ("task", "task_type"), ("rank", "r"), ("alpha", "lora_alpha"),
    ("dropout", "lora_dropout"), ("bias", "bias"), ("target modules", "target_modules"),
)  # fmt: skip
OFT_SETTINGS = (
    ("type", "peft_type"), ("task", "task_type"), ("block size", "oft_block_size"),
    ("dropout", "module_dropout"), ("bias", "bias"), ("target modules", "target_modules"),
    ("block_share", "block_share"), ("coft", "coft"), ("use_cayley_neumann", "use_cayley_neumann"),
)  # fmt: skip
OFT_COLUMNS = (
    "target", "modules", "blocks", "block size", "parameters", "norm of R − I", "largest angle",
    "norm of RᵀR − I",
)  # fmt: skip
COLUMNS = ("target", "modules", "rank", "scale", "A", "B", "parameters", "norm of ΔW", "effective rank")


@dataclass(frozen=True, slots=True)
class ModuleStatistics:
    """One module: its place, the sizes of its factors, and the norm and spectrum of its ΔW.

    The effective rank is exp of the entropy of the normalised singular values (Roy and Vetterli 2007). For a
    DoRA module norm and spectrum describe s·B·A, since the rescaled ΔW needs the base; `magnitude` is the
    range (smallest, largest) of its row norms. `experts` is the number of experts of a bare parameter, 0 for
    other modules. Their ΔW count as one block-diagonal matrix.
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
class RotationStatistics:
    """One module of an OFT adapter: R as its file has it, `blocks` of `block_size` inputs.

    `norm` is ‖R − I‖ (Frobenius), `angle` the largest angle by which R turns a vector, in degrees.
    `nonorthogonal` is ‖RᵀR − I‖, by which Cayley-Neumann misses a rotation.
    """

    path: str
    layer: int | None
    target: str
    blocks: int
    block_size: int
    parameters: int
    norm: float
    angle: float
    nonorthogonal: float


@dataclass(frozen=True, slots=True)
class Histogram:
    """Counts of values in even bins from −`reach` to `reach`. The outer bins include all values beyond."""

    target: str
    side: str
    reach: float
    counts: list[int]


@dataclass(frozen=True, slots=True)
class AdapterStatistics:
    """One adapter: its adapter_config.json (`config`), its modules and their totals.

    `bytes` is the size of the weights file, `norm` ‖ΔW‖ (Frobenius) over all modules, `parameters` the number
    of elements of all factors or triangles. `made_of` is the merge.json of a merged adapter. An OFT adapter
    has `rotations` and no `modules`; its ΔW needs the base, so `norm` is 0.
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
    rotations: list[RotationStatistics] = field(default_factory=list)


def measure(adapter: Adapter, progress: Iterable[str], *, histograms: bool) -> AdapterStatistics:
    """Measure an adapter; `progress` yields its module paths, one after another."""
    tensors = adapter.weights.tensors.values()
    modules: list[ModuleStatistics] = []
    rotations: list[RotationStatistics] = []
    if adapter.rotations:
        rotations += prefetch(functools.partial(_rotation, adapter), progress)
    else:
        modules += prefetch(functools.partial(_module, adapter), progress)
    dtypes = Counter(tensor.dtype for tensor in tensors)
    shapes: list[Histogram] = []
    if histograms and modules:
        shapes = _histograms(adapter)
    return AdapterStatistics(
        name=adapter.name,
        digest=adapter.digest,
        sha256=adapter.weights_sha256,
        base=adapter.config.base,
        dtypes=[dtype for dtype, _ in dtypes.most_common()],
        tensors=len(tensors),
        bytes=sum(file.stat().st_size for file in adapter.files),
        full_tensors=adapter.full_tensors,
        config=adapter.config.raw,
        modules=modules,
        parameters=sum(map(_factor_elements, modules)) + sum(rotation.parameters for rotation in rotations),
        norm=math.hypot(*(module.norm for module in modules)),
        histograms=shapes,
        made_of=read_provenance(adapter.folder),
        rotations=rotations,
    )


def similarity(one: Adapter, other: Adapter, norms: tuple[float, float]) -> float | None:
    """Cosine similarity ⟨ΔW₁, ΔW₂⟩ / (‖ΔW₁‖·‖ΔW₂‖) over all modules. None if shapes differ or a norm is 0.

    `norms` are ‖ΔW₁‖ and ‖ΔW₂‖ of the whole adapters: a module of only one adapter counts as zero. It
    is 0 for OFT.
    """
    product = 0.0
    for path, module in one.layout.items():
        if path not in other.layout:
            continue
        if module.sizes != other.layout[path].sizes:
            return None
        scales = one.lora.scale_of(path) * other.lora.scale_of(path)
        product += scales * lowrank.inner(one.factors(path), other.factors(path))
    for path, parameter in one.parameters.items():
        if path not in other.parameters:
            continue
        other_parameter = other.parameters[path]
        experts = parameter.rank // one.lora.rank
        other_experts = other_parameter.rank // other.lora.rank
        if parameter.sizes != other_parameter.sizes or experts != other_experts:
            return None
        scales = one.lora.scale_of(unwrapped(path)) * other.lora.scale_of(unwrapped(path))
        factors = factors_by_expert(*one.factors(path), experts)
        other_factors = factors_by_expert(*other.factors(path), experts)
        for pair, other_pair in zip(factors, other_factors, strict=True):
            product += scales * lowrank.inner(pair, other_pair)
    if not (norms[0] and norms[1]):
        return None
    return product / (norms[0] * norms[1])


def _histograms(adapter: Adapter) -> list[Histogram]:
    """Distribution of the elements of each target's A and B, all layers together."""
    paths_by_target: dict[str, list[str]] = {}
    for path in adapter.paths:
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
        wrappers = path.count(WRAPPED)
        target = "experts"
        if wrappers:
            target = f"experts ({wrappers + 1})"
    else:
        module = adapter.layout[path]
        rank, experts = module.rank, 0
        values = scale * lowrank.singular_values(a, b)
        target = path.rpartition(".")[2]
    shares = values[values > 0] / (values.sum() or 1.0)
    effective_rank = 0.0
    if len(shares):
        effective_rank = float(np.exp(-(shares * np.log(shares)).sum()))
    magnitude = None
    if adapter.lora.dora:
        norms = adapter.magnitude(path)
        magnitude = float(norms.min()), float(norms.max())
    return ModuleStatistics(
        path,
        _layer_of(path),
        target,
        module.kind,
        module.outputs,
        module.inputs,
        rank,
        scale,
        norm=float(np.sqrt((values**2).sum())),
        effective_rank=effective_rank,
        singular_values=values.tolist(),
        experts=experts,
        magnitude=magnitude,
    )


def _layer_of(path: str) -> int | None:
    """Number of a module's layer, None if its path has none."""
    number = re.search(r"\.(\d+)\.", path)
    if number is None:
        return None
    return int(number[1])


def _rotation(adapter: Adapter, path: str) -> RotationStatistics:
    from tuneyard.adapters.oft import rotation_minus_identity

    rotation = adapter.rotations[path]
    change = rotation_minus_identity(adapter, path)
    deviation = change + change.transpose(0, 2, 1) + change.transpose(0, 2, 1) @ change
    eigenvalues = np.linalg.eigvals(change + np.eye(rotation.size))
    return RotationStatistics(
        path,
        _layer_of(path),
        path.rpartition(".")[2],
        rotation.blocks,
        rotation.size,
        parameters=rotation.blocks * rotation.size * (rotation.size - 1) // 2,
        norm=float(np.linalg.norm(change)),
        angle=float(np.degrees(np.abs(np.angle(eigenvalues)).max())),
        nonorthogonal=float(np.linalg.norm(deviation)),
    )


def text(measured: list[AdapterStatistics], cosines: Matrix) -> Iterator[str]:
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
        yield from _table(["", *names], rows)


def _table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> Iterator[str]:
    """Align columns: the first to the left, the others to the right."""
    widths = [max(map(text_width, column)) for column in zip(header, *rows, strict=True)]
    for first, *others in (header, *rows):
        cells = [first + " " * (widths[0] - text_width(first))]
        for cell, width in zip(others, widths[1:], strict=True):
            cells.append(" " * (width - text_width(cell)) + cell)
        yield "  ".join(cells).rstrip()


def _adapter_lines(adapter: AdapterStatistics) -> Iterator[str]:
    base = adapter.base or tr("not named")
    if not base.isprintable():  # a terminal obeys control characters
        base = show_value(base)
    dtypes = "+".join(adapter.dtypes)
    heading = "{name}  base {base}  {dtypes}  sha256 {sha256}"
    yield tr(heading, name=adapter.name, base=base, dtypes=dtypes, sha256=adapter.sha256)
    totals = tr(
        "{modules}  {tensors}  {parameters}  {bytes:,} bytes ({mebibytes} MiB)",
        modules=tr_counted(len(adapter.modules) + len(adapter.rotations), "module"),
        tensors=tr_counted(adapter.tensors, "tensor"),
        parameters=tr_counted(adapter.parameters, "parameter"),
        bytes=adapter.bytes,
        mebibytes=math.ceil(adapter.bytes / 2**20 * 10) / 10,
    )
    if adapter.modules:
        norm = tr("norm of ΔW")
        totals += f"  {norm} {adapter.norm:.4g}"
    yield totals
    settings = []
    names_and_keys = OFT_SETTINGS if adapter.rotations else SETTINGS
    for name, key in names_and_keys:
        value = adapter.config.get(key)
        value_text = str(value)
        if isinstance(value, list):
            value_text = " ".join(map(str, value))
        elif value is None:
            value_text = tr("not given")
        settings.append(f"{tr(name)} {value_text}")
    yield tr("config: {settings}", settings=tr(", ").join(settings))
    if adapter.made_of:
        method = adapter.made_of["method"]
        for name, value in adapter.made_of["parameters"].items():
            if value is not None:
                method += f" {name} {value:g}"
        parts = [f"{entry['name']} ({entry['weight']:g})" for entry in adapter.made_of["adapters"]]
        yield tr("merged by {method} from {parts}", method=method, parts=tr(", ").join(parts))
    magnitudes = [module.magnitude for module in adapter.modules if module.magnitude]
    if magnitudes:
        sentence = (
            "DoRA: magnitudes from {low:.4g} to {high:.4g}. Norms and ranks below are of s·B·A. The whole "
            "ΔW needs the base (`tuneyard adapter fuse` is exact)."
        )
        low = min(smallest for smallest, _ in magnitudes)
        high = max(largest for _, largest in magnitudes)
        yield tr(sentence, low=low, high=high)
    if adapter.full_tensors:
        names = tr(", ").join(adapter.full_tensors)
        yield tr("saved in full (modules_to_save, bias): {names}", names=names)
    yield ""
    if adapter.rotations:
        yield from _rotation_lines(adapter.rotations)
        return
    groups: dict[tuple[str, int, int], list[ModuleStatistics]] = {}
    for module in adapter.modules:
        groups.setdefault((module.target, module.outputs, module.inputs), []).append(module)
    yield from _table([tr(name) for name in COLUMNS], [_target_row(modules) for modules in groups.values()])
    norms = {(m.layer, m.target): m.norm for m in adapter.modules if m.layer is not None}
    if norms:
        yield ""
        yield tr("norm of ΔW by layer")
        targets = list(dict.fromkeys(target for _, target in norms))
        rows = []
        for layer in sorted({layer for layer, _ in norms}):
            cells = [_number(norms.get((layer, target))) for target in targets]
            rows.append([str(layer), *cells])
        yield from _table([tr("layer"), *targets], rows)


def _rotation_lines(rotations: list[RotationStatistics]) -> Iterator[str]:
    yield tr("OFT: weights become W·Rᵀ. ΔW needs the base (`tuneyard adapter fuse` is exact).")
    groups: dict[tuple[str, int, int], list[RotationStatistics]] = {}
    for rotation in rotations:
        groups.setdefault((rotation.target, rotation.blocks, rotation.block_size), []).append(rotation)
    rows = []
    for (target, blocks, block_size), group in groups.items():
        rows.append(
            [
                target,
                str(len(group)),
                str(blocks),
                str(block_size),
                f"{sum(rotation.parameters for rotation in group):,}",
                _range([rotation.norm for rotation in group]),
                f"{max(rotation.angle for rotation in group):.1f}°",
                f"{max(rotation.nonorthogonal for rotation in group):.1e}",
            ]
        )
    yield from _table([tr(name) for name in OFT_COLUMNS], rows)


def _target_row(modules: list[ModuleStatistics]) -> list[str]:
    """Cells of `COLUMNS` for the modules of one target and shape."""
    first = modules[0]
    target = first.target
    if first.kind == "embedding":
        target += tr(" (embedding)")
    if first.experts:
        target += f" × {first.experts}"
    rank = _range([module.rank for module in modules])
    elements = sum(_factor_elements(module) for module in modules)
    return [
        target,
        str(len(modules)),
        rank,
        _range([module.scale for module in modules]),
        f"{rank}×{first.inputs}",
        f"{first.outputs}×{rank}",
        f"{elements:,}",
        _range([module.norm for module in modules]),
        f"{median(module.effective_rank for module in modules):.1f}",
    ]


def _range(values: Sequence[float]) -> str:
    low, high = f"{min(values):.4g}", f"{max(values):.4g}"
    if low == high:
        return low
    return f"{low}–{high}"


def _number(value: float | None) -> str:
    if value is None:
        return "–"
    return f"{value:.4g}"
