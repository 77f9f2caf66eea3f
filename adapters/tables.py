"""The tables that `show` prints."""

import math
from collections.abc import Iterator, Sequence
from statistics import median

from adapters.statistics import AdapterStatistics, ModuleStatistics
from core.errors import show_value

Matrix = list[list[float | None]]
CONFIG = (
    ("type", "peft_type"), ("task", "task_type"), ("rank", "r"), ("alpha", "lora_alpha"),
    ("dropout", "lora_dropout"), ("bias", "bias"), ("target modules", "target_modules"),
)  # fmt: skip


def text(measured: list[AdapterStatistics], cosines: Matrix) -> Iterator[str]:
    """Yield the lines of the report on several adapters; `cosines` are their pairwise cosine similarities."""
    for found in measured:
        yield from _adapter(found)
        yield ""
    if len(measured) > 1:
        names = [found.name for found in measured]
        yield "cosine similarity of ΔW (1: same direction, 0: orthogonal)"
        rows = [[name, *(_number(v) for v in row)] for name, row in zip(names, cosines, strict=True)]
        yield from _table(["", *names], rows)


def _table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> Iterator[str]:
    """Yield aligned lines: the first column to the left, the others to the right."""
    widths = [max(map(len, column)) for column in zip(header, *rows, strict=True)]
    for first, *others in (header, *rows):
        cells = [first.ljust(widths[0]), *(cell.rjust(w) for cell, w in zip(others, widths[1:], strict=True))]
        yield "  ".join(cells).rstrip()


def _adapter(found: AdapterStatistics) -> Iterator[str]:
    base = found.base or "not named"
    base = base if base.isprintable() else show_value(base)  # a terminal obeys what control characters say
    yield f"{found.name}  base {base}  {'+'.join(found.dtypes)}  sha256 {found.sha256}"
    yield (
        f"{len(found.modules)} modules  {found.tensors} tensors  {found.parameters:,} parameters  "
        f"{found.bytes:,} bytes ({math.ceil(found.bytes / 2**20 * 10) / 10} MiB)  norm of ΔW {found.norm:.4g}"
    )
    config = {name: found.config.get(key) for name, key in CONFIG}
    yield f"config: {', '.join(f'{name} {_setting(value)}' for name, value in config.items())}"
    if found.full_tensors:
        yield f"saved in full (modules_to_save, bias): {', '.join(found.full_tensors)}"
    yield ""
    groups: dict[tuple[str, int, int], list[ModuleStatistics]] = {}
    for module in found.modules:
        groups.setdefault((module.target, module.outputs, module.inputs), []).append(module)
    yield from _table(
        ["target", "modules", "rank", "scale", "A", "B", "parameters", "norm of ΔW", "effective rank"],
        [_target(modules) for modules in groups.values()],
    )
    layers = sorted({module.layer for module in found.modules if module.layer is not None})
    if layers:
        yield ""
        yield "norm of ΔW by layer"
        targets = list(dict.fromkeys(module.target for module in found.modules if module.layer is not None))
        norms = {(module.layer, module.target): module.norm for module in found.modules}
        rows = [
            [str(layer), *(_number(norms.get((layer, target))) for target in targets)] for layer in layers
        ]
        yield from _table(["layer", *targets], rows)


def _setting(value: object) -> str:
    if isinstance(value, list):
        return " ".join(map(str, value))
    return "not given" if value is None else str(value)


def _target(modules: list[ModuleStatistics]) -> list[str]:
    ranks, scales = sorted({m.rank for m in modules}), sorted({m.scale for m in modules})
    one = modules[0]
    rank = _range(ranks)
    return [
        one.target + (" (embedding)" if one.kind == "embedding" else ""),
        str(len(modules)), rank, _range(scales), f"{rank}×{one.inputs}", f"{one.outputs}×{rank}",
        f"{sum(m.rank * (m.outputs + m.inputs) for m in modules):,}",
        _range([min(m.norm for m in modules), max(m.norm for m in modules)]),
        f"{median(m.effective_rank for m in modules):.1f}",
    ]  # fmt: skip


def _range(values: Sequence[float]) -> str:
    low, high = f"{values[0]:.4g}", f"{values[-1]:.4g}"
    return low if low == high else f"{low}–{high}"


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.4g}"
