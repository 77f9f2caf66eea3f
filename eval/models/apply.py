"""Apply adapters temporarily, unmerged next to the base's weights or merged into them.

Unmerged is exact: a hook computes y + s·B(Ax) for each adapted linear and leaves the base's weights alone.
Merged gives the weights that `tuneyard adapter fuse` writes: the sum, rounded to the base's dtype.
"""

import contextlib
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from tuneyard.adapters.model.lora import LoraAdapter
from tuneyard.adapters.model.weighted import WeightedAdapter, factors_of
from tuneyard.core.errors import ContentError
from tuneyard.core.language.message import _
from tuneyard.core.weights.adapter_files import PREFIX, full_tensor_mismatch, unwrapped_tensor
from tuneyard.core.weights.adapter_names import misnaming
from tuneyard.eval.models import Network

if TYPE_CHECKING:
    import torch
    from torch.nn import Module


Undo = Callable[[], object]
COPY = ".base_layer.weight"
"""How the names of PEFT's copies of the base's embedding and head end, next to their factors."""


def check_fits(model: Network, adapter: LoraAdapter) -> None:
    """Raise `ContentError` unless the model has every module of the adapter, in its shape."""
    import torch
    from transformers.pytorch_utils import Conv1D

    shapes: dict[str, tuple[int, ...]] = {}
    layouts = dict(adapter.modules)
    for path, module in model.net.named_modules():
        weight = getattr(module, "weight", None)
        if isinstance(module, torch.nn.Linear):  # the weight of a quantised module has another shape
            shapes[path] = (module.out_features, module.in_features)
        elif weight is not None:
            shapes[path] = tuple(weight.shape)
        if path in layouts and layouts[path].kind == "linear":  # the class decides, as in PEFT
            layouts[path] = layouts[path]._replace(transposed=isinstance(module, Conv1D))
    renaming = misnaming(adapter.folder, layouts, shapes, model.folder)
    if renaming:
        raise ContentError(_("adapter {name}: {renaming}", name=adapter.name, renaming=renaming))
    for path, layout in layouts.items():
        misfit = layout.mismatch(path, shapes.get(path), _("the model"))
        if misfit:
            trained_on = adapter.config.base or _("a base that its config does not name")
            raise ContentError(
                _(
                    "adapter {folder}: {misfit} It was trained on {base}",
                    folder=adapter.folder,
                    misfit=misfit,
                    base=trained_on,
                )
            )
    # not state_dict(), for which bitsandbytes unpacks 4-bit weights on CPUs: the next answers would differ
    tensors = dict(model.net.named_parameters(remove_duplicate=False))
    tensors.update(model.net.named_buffers(remove_duplicate=False))
    for name in adapter.full_tensors:
        model_shape = None
        in_model = unwrapped_tensor(name)  # PEFT wraps adapted modules
        if in_model in tensors:
            model_shape = tuple(tensors[in_model].shape)
        saved_shape = adapter.weights.tensors[PREFIX + name].shape
        misfit = full_tensor_mismatch(name, saved_shape, model_shape, _("the model"), may_grow=False)
        if misfit:
            raise ContentError(
                _(
                    "adapter {folder}: {misfit} If its vocabulary is larger, fuse it: "
                    "tuneyard adapter fuse makes a model that can be scored",
                    folder=adapter.folder,
                    misfit=misfit,
                )
            )


def applied(
    model: Network, adapters: Sequence[WeightedAdapter], merged: bool = False
) -> contextlib.ExitStack:
    """Let the model answer as the base + Σ weight·ΔW of the adapters until the result is closed.

    No adapters: the base.
    """
    change_module = _merge if merged else _hook
    adapters_by_tensor: dict[str, list[WeightedAdapter]] = {}
    adapters_by_module: dict[str, list[WeightedAdapter]] = {}
    for weighted in adapters:
        for name in weighted.adapter.full_tensors:
            if name.endswith(COPY):
                continue
            adapters_by_tensor.setdefault(name, []).append(weighted)
        for path in weighted.adapter.modules:
            adapters_by_module.setdefault(path, []).append(weighted)
    with contextlib.ExitStack() as stack:
        for name, holders in adapters_by_tensor.items():
            stack.callback(_replace(model, holders, name))
        for path, holders in adapters_by_module.items():
            stack.callback(change_module(model, holders, path))
        return stack.pop_all()


def _hook(model: Network, adapters: Sequence[WeightedAdapter], path: str) -> Undo:
    """Add the adapters' products to the output of a module. Call the result to undo it."""
    import torch

    pair = factors_of(adapters, path).exact  # scaled before any rounding
    a, b = (torch.from_numpy(one).to(model.net.dtype).to(model.device) for one in pair)

    def linear(
        _module: "Module", inputs: "tuple[torch.Tensor, ...]", output: "torch.Tensor"
    ) -> "torch.Tensor":
        x = inputs[0].reshape(-1, a.shape[1])
        return output.view(-1, b.shape[0]).addmm_(x @ a.T, b.T).view(output.shape)

    def embedding(
        _module: "Module", inputs: "tuple[torch.Tensor, ...]", output: "torch.Tensor"
    ) -> "torch.Tensor":
        return output + torch.nn.functional.embedding(inputs[0], a.T) @ b.T

    hook = embedding if adapters[0].adapter.modules[path].kind == "embedding" else linear
    undo: Undo = model.net.get_submodule(path).register_forward_hook(hook).remove
    return undo


def _merge(model: Network, adapters: Sequence[WeightedAdapter], path: str) -> Undo:
    """Add the adapters' ΔW to a module's weight, rounded to its dtype. Call the result to undo it.

    The module gets a weight of its own: one that is tied to it keeps its values, as in training.
    """
    import torch
    from transformers.pytorch_utils import Conv1D

    module = model.net.get_submodule(path)
    kept = module.weight
    a, b = (torch.from_numpy(one).float().to(model.device) for one in factors_of(adapters, path).exact)
    change = b @ a
    if adapters[0].adapter.modules[path].kind == "embedding" or isinstance(module, Conv1D):
        change = change.T
    changed = (kept.float() + change).to(kept.dtype)
    module.weight = torch.nn.Parameter(changed, requires_grad=False)
    return lambda: setattr(module, "weight", kept)


def _replace(model: Network, adapters: Sequence[WeightedAdapter], name: str) -> Undo:
    """Set a parameter that adapters trained in full to W₀ + Σ weight·(W − W₀).

    A parameter that is tied to it keeps W₀. Call the result to undo it.
    """
    import torch

    owner, _dot, leaf = unwrapped_tensor(name).rpartition(".")
    module = model.net.get_submodule(owner)
    kept = getattr(module, leaf)
    tensors = [torch.from_numpy(weighted.adapter.full_tensor(name)) for weighted in adapters]
    value = tensors[0]  # its bytes, without a rounding of the sum
    if [weighted.weight for weighted in adapters] != [1.0]:
        start = kept.detach().double().cpu()
        deltas = [
            weighted.weight * (trained - start) for weighted, trained in zip(adapters, tensors, strict=True)
        ]
        value = start + sum(deltas)
    setattr(module, leaf, torch.nn.Parameter(value.to(model.device, kept.dtype), requires_grad=False))
    return lambda: setattr(module, leaf, kept)
