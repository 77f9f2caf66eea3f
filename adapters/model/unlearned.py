"""Adapters that change nothing: ΔW = 0 in all modules, or in some.

LoRA starts with B = 0, and OFT with a rotation by 0: a module without a gradient stays so.
"""

from collections.abc import Iterable, Iterator, Sequence

from tuneyard.adapters.model.adapter import Adapter, layer_of
from tuneyard.core.language.message import marked, tr
from tuneyard.core.weights.base_models import Base

SOME = marked(
    "{adapter}: ΔW = 0 in {number} of {total} modules ({places}): they learned nothing; if they should have, "
    "see loss and grad_norm in the trainer_log.jsonl of the training"
)
ALL = marked(
    "{adapter}: ΔW = 0 in all {number} modules: nothing was learned, or the weights were saved before the "
    "first step; see loss and grad_norm in the trainer_log.jsonl of the training, then name a later "
    "checkpoint or train again"
)
ONLY_FULL_TENSORS = marked(
    "{adapter}: ΔW = 0 in all {number} modules: only tensors that are saved in full can differ from the base "
    "({names})"
)
ONLY_MAGNITUDES = marked(
    "{adapter}: B·A = 0 in {number} of {total} modules ({places}): only their magnitudes can differ from the "
    "base, with which `tuneyard adapter fuse` compares them"
)


def unlearned_modules(adapter: Adapter, base: Base | None) -> list[str]:
    """Paths of the modules with ΔW = 0, without the base those of DoRA with B·A = 0."""
    return [path for path in adapter.modules if adapter.is_zero(path, base)]


def unlearned_notes(adapters: Iterable[Adapter], base: Base | None = None) -> Iterator[str]:
    """Yield a note for each adapter that has modules with ΔW = 0.

    The `base` decides for DoRA, whose magnitudes can change a weight without B·A.
    """
    for adapter in adapters:
        paths = unlearned_modules(adapter, base)
        if paths:
            yield unlearned_note(adapter, paths, base)


def unlearned_note(adapter: Adapter, paths: Sequence[str], base: Base | None) -> str:
    """The note on the modules of `unlearned_modules`."""
    total = len(adapter.modules)
    counts = {"adapter": adapter.name, "number": len(paths)}
    if adapter.HAS_MAGNITUDES and base is None:
        return tr(ONLY_MAGNITUDES, **counts, total=total, places=places(paths))
    if len(paths) < total:
        return tr(SOME, **counts, total=total, places=places(paths))
    if adapter.full_tensors:
        return tr(ONLY_FULL_TENSORS, **counts, names=tr(", ").join(adapter.full_tensors))
    return tr(ALL, **counts)


def places(paths: Sequence[str]) -> str:
    """Targets and layers of modules, as `down, up, q, v of layers 20–29`."""
    names = {path.rpartition(".")[2].removesuffix("_proj") for path in paths}
    targets = tr(", ").join(sorted(names))
    numbers = {layer_of(f".{path}") for path in paths}
    layers = sorted(number for number in numbers if number is not None)
    if not layers:
        return targets
    ranges: list[list[int]] = []
    for layer in layers:
        if ranges and layer == ranges[-1][-1] + 1:
            ranges[-1][1:] = [layer]
        else:
            ranges.append([layer])
    spans = ["–".join(map(str, span)) for span in ranges]
    return tr("{targets} of layers {layers}", targets=targets, layers=tr(", ").join(spans))
