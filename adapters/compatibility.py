"""Check that adapters can be added: to one another, and to a base."""

from collections.abc import Iterator, Sequence
from itertools import combinations
from pathlib import Path

from tuneyard.adapters.adapter import Adapter, raise_together
from tuneyard.adapters.kinds.lora import LoraAdapter
from tuneyard.adapters.weighted import Weighted
from tuneyard.core.errors import ContentError
from tuneyard.core.weights.base_models import Base, check_base


def check_inputs(weighted: Sequence[Weighted[Adapter]], base: Base | None, *, same_base: bool) -> list[str]:
    """Refuse adapters that cannot be added, and list notes on what could not be checked.

    `same_base` is the user's statement that the adapters' base and `base` are the same model.
    """
    check_together(weighted)
    notes = list(_notes(weighted))
    if base is None:
        _check_base_names(weighted)
        return notes
    for item in weighted:
        adapter = item.adapter
        if item.weight:
            with adapter.config.bounded():
                raise_together([*adapter.misfits(base), *_missing(adapter, base)], adapter.name)
        unchecked = check_base(
            adapter.folder, adapter.config.base, base.folder, str(base.folder), same=same_base
        )
        if unchecked:
            notes.append(unchecked)
    return notes


def check_together(weighted: Sequence[Weighted[Adapter]]) -> None:
    """Refuse adapters with different base revisions, shapes or layers."""
    adapters = [item.adapter for item in weighted]
    for one, other in combinations(adapters, 2):
        revision = one.config.raw.get("revision") or "main"
        other_revision = other.config.raw.get("revision") or "main"
        if revision != other_revision:
            raise ContentError(
                f"different base revisions: {one.name} was trained on {revision}, "
                f"{other.name} on {other_revision}"
            )
        if one.config.fan_in_fan_out != other.config.fan_in_fan_out:
            raise ContentError(
                f"fan_in_fan_out differs between {one.name} and {other.name}: not the same layers"
            )
        if not isinstance(one, LoraAdapter) or not isinstance(other, LoraAdapter):
            continue  # no adapter of another kind is added to others
        for path, module in one.modules.items():
            other_module = other.modules.get(path, module)
            if module.sizes != other_module.sizes:
                raise ContentError(
                    f"different base models: {path} is {module.sizes} in {one.name}, "
                    f"{other_module.sizes} in {other.name}; merge adapters of one base"
                )
        _check_layers(one, other)
        _check_layers(other, one)


def _check_layers(complete: Adapter, adapter: Adapter) -> None:
    """Refuse an adapter without a module that its config targets and that the `complete` one has."""
    with adapter.config.bounded():
        for path in complete.modules:
            if path not in adapter.modules and adapter.config.targets(path):
                raise ContentError(
                    f"{adapter.weights.path}: {path} is missing: its config targets it, and {complete.name} "
                    "has it"
                )


def _check_base_names(weighted: Sequence[Weighted[Adapter]]) -> None:
    """Refuse adapters whose configs name different bases, since no base is given to compare them with."""
    first_by_base: dict[str, Adapter] = {}
    for item in weighted:
        name = item.adapter.config.base
        if not name:
            continue
        base = name.rstrip("/")
        if Path(name).exists():
            base = str(Path(name).resolve())
        first_by_base.setdefault(base, item.adapter)
    if len(first_by_base) > 1:
        one, other = list(first_by_base.values())[:2]
        raise ContentError(
            f"different base models: {one.name} was trained on {one.config.base}, {other.name} on "
            f"{other.config.base}; if both are the same model, give it as --base DIR, which decides"
        )


def _missing(adapter: Adapter, base: Base) -> Iterator[str]:
    """Yield biases and modules of the base that the config targets but the file lacks."""
    if adapter.config.bias == "all" and not any(name.endswith(".bias") for name in adapter.full_tensors):
        for name in base.tensors:
            if name.endswith(".bias"):
                yield f"bias 'all', but {name} of {base.folder} is not in the file"
    if adapter.config.raw.get("target_modules") == "all-linear":  # PEFT writes the names when it saves
        return
    for name, tensor in base.tensors.items():
        path = base.module_name(name).removesuffix(".weight")
        is_matrix = name.endswith(".weight") and len(tensor.shape) == 2
        if is_matrix and path not in adapter.modules and adapter.config.targets(path):
            yield f"{path} is missing, although its config targets it"


def _notes(weighted: Sequence[Weighted[Adapter]]) -> Iterator[str]:
    """Notes on inputs that count otherwise than a user may expect, or not at all."""
    unnamed = [item.adapter.name for item in weighted if item.adapter.config.base is None]
    if unnamed and len(weighted) > 1:
        yield f"not checked: {', '.join(unnamed)} names no base model"
    used = [item for item in weighted if item.weight]
    weights: dict[Path, list[float]] = {}
    for item in used:
        weights.setdefault(item.adapter.folder.resolve(), []).append(item.weight)
    for folder, shares in weights.items():
        if len(shares) > 1:
            yield f"{folder.name} is given {len(shares)} times: its weights add up to {sum(shares):g}"
    for item in used:
        for head in sorted(item.adapter.folder.glob("value_head.*")):
            yield f"left out: {head}, the value head of a reward model"
    unused = [item.adapter.name for item in weighted if not item.weight]
    if unused:
        yield f"weight 0: {', '.join(unused)} left out"
