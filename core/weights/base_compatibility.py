"""Whether an adapter fits a base, by the shapes in the headers of their files."""

import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from tuneyard.core.errors import ContentError
from tuneyard.core.files import read_object
from tuneyard.core.language.message import _
from tuneyard.core.weights.adapter_files import (
    CONFIG,
    PREFIX,
    ChangedModule,
    Module,
    adapted_modules,
    check_task,
    full_tensor_mismatch,
    unwrapped_tensor,
)
from tuneyard.core.weights.adapter_names import misnaming, open_adapter_weights
from tuneyard.core.weights.base_models import Base, open_base
from tuneyard.core.weights.oft_rotations import rotated_modules

_LAYER_NUMBER = re.compile(r"(?<=\.)\d+(?=\.)")


def module_mismatches(base: Base, modules: Mapping[str, ChangedModule]) -> Iterator[str]:
    """Yield why weights of the base cannot be changed by an adapter."""
    for path, module in modules.items():
        if isinstance(module, Module):
            module = as_stored(base, path, module)
        mismatch = module.mismatch(path, stored_shape(base, f"{path}.weight"), base.folder)
        if mismatch:
            yield mismatch


def as_stored(base: Base, path: str, module: Module) -> Module:
    """A LoRA's module, transposed if the base's class stores the weight so."""
    transposed = base.is_transposed(path)
    if module.kind == "embedding" or transposed is None:
        return module
    return module._replace(transposed=transposed)


def shapes_of(base: Base) -> dict[str, tuple[int, ...]]:
    """Shapes of the weights of a base by module, under the names of the live model."""
    shapes = {}
    for name, tensor in base.tensors.items():
        path, _unused, leaf = base.module_name(name).rpartition(".")
        if leaf == "weight":
            shapes[path] = tensor.shape
    return shapes


def adapter_mismatches(adapter: Path, base_folder: Path, *, may_grow: bool) -> list[str]:
    """Every module and full tensor of the adapter that does not fit the base's shapes.

    `may_grow`: embeddings and heads that the adapter saves in full may have more rows than the base's.
    `ContentError` if the base has its modules under other names, and for other tasks (`check_task`).
    """
    config = read_object(adapter / CONFIG)
    check_task(adapter / CONFIG, config)
    base = open_base(base_folder)
    weights = open_adapter_weights(adapter)
    modules: dict[str, ChangedModule] = dict(adapted_modules(weights, config))
    modules.update(rotated_modules(weights, config))
    renaming = misnaming(adapter, modules, shapes_of(base), base_folder)
    if renaming:
        raise ContentError(_("adapter {adapter}: {renaming}", adapter=adapter, renaming=renaming))
    comparable = comparable_tensors(base, [f"{path}.weight" for path in modules])
    mismatches = [
        *module_mismatches(base, {path: modules[path] for path in modules if f"{path}.weight" in comparable})
    ]
    names_in_base = {key: unwrapped_tensor(key.removeprefix(PREFIX)) for key in weights.tensors}
    comparable = comparable_tensors(base, names_in_base.values())
    for key, name in names_in_base.items():
        if name not in comparable:
            continue
        if not key.startswith(PREFIX):
            mismatches.append(
                _(
                    "{path}: {key}: expected names that begin with {prefix!r}",
                    path=weights.path,
                    key=key,
                    prefix=PREFIX,
                )
            )
            continue
        saved_shape, shape = weights.tensors[key].shape, stored_shape(base, name)
        mismatch = full_tensor_mismatch(name, saved_shape, shape, base_folder, may_grow=may_grow)
        if mismatch:
            mismatches.append(mismatch)
    return mismatches


def stored_shape(base: Base, tensor: str) -> tuple[int, ...] | None:
    """Shape of a tensor in the files of a model, None if it has none by this name."""
    stored = base.find(tensor)
    if stored is None:
        return None
    return base.tensors[stored].shape


def comparable_tensors(base: Base, tensors: Iterable[str]) -> set[str]:
    """Keep the tensors that the base has in some layer: a checkpoint may give others another name."""
    names = {_LAYER_NUMBER.sub("#", base.module_name(tensor)) for tensor in base.tensors}
    return {
        tensor
        for tensor in tensors
        if _LAYER_NUMBER.sub("#", tensor) in names or stored_shape(base, tensor) is not None
    }
