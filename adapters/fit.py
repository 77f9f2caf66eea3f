"""Whether adapters belong to a base: each module there, of its shape, and none left out."""

import filecmp
from collections.abc import Iterable, Iterator
from pathlib import Path

from adapters.base import Base
from adapters.parts import Part
from adapters.store import Adapter, Module
from core.errors import ContentError


def check_fits(base: Base, parts: Iterable[Part]) -> None:
    """Refuse adapters whose modules the base lacks or shapes otherwise, or that lack what they target."""
    for part in parts:
        for path, module in part.adapter.layout.items():
            _check_module(base, part.adapter, path, module)
        _check_whole(base, part.adapter)


def other_bases(base: Base, parts: Iterable[Part]) -> Iterator[str]:
    """Yield a warning for each adapter whose config names another model than the base."""
    for part in parts:
        named = part.adapter.base
        if named and not _is(base, Path(named)):
            yield (
                f"adapter {part.adapter.folder} names {named} as its base, "
                f"it is fused into {base.folder}: check that they are the same model"
            )


def _is(base: Base, named: Path) -> bool:
    """Return whether a name means the base: by the weights where it is a folder here, else by its end."""
    folder = base.folder.resolve()
    if not named.is_dir():
        return named.name == folder.name
    return named.resolve() == folder or all(
        (named / name).is_file() and filecmp.cmp(shard.path, named / name, shallow=False)
        for name, shard in base.shards.items()
    )


def transposed(adapter: Adapter, module: Module) -> bool:
    """Return whether the stored weight changes by (B·A)ᵀ: embeddings, and Conv1D layers (fan_in_fan_out)."""
    return module.kind == "embedding" or adapter.lora.fan_in_fan_out


def _check_module(base: Base, adapter: Adapter, path: str, module: Module) -> None:
    stored = base.find(f"{path}.weight")
    if stored is None:
        raise ContentError(f"{adapter.name}: {path}: {base.folder} has no such module: another base?")
    expected = (module.outputs, module.inputs)
    expected, found = expected[::-1] if transposed(adapter, module) else expected, base.tensors[stored].shape
    if found != expected:
        raise ContentError(
            f"{adapter.name}: {path}: made for a weight of shape {list(expected)}, "
            f"{base.folder} has {list(found)}"
        )


def _check_whole(base: Base, adapter: Adapter) -> None:
    """Refuse a file that lacks factors for a module of the base that its config takes in."""
    if adapter.config.get("target_modules") == "all-linear":  # PEFT writes the names themselves when it saves
        return
    for name, tensor in base.tensors.items():
        path = name.removesuffix(".weight")
        if (
            path != name
            and len(tensor.shape) == 2
            and path not in adapter.layout
            and adapter.lora.targets(path)
        ):
            raise ContentError(f"{adapter.weights.path}: {path} is missing, although its config targets it")
