"""Adapters applied for a while: unmerged beside the base's weights, or merged into them.

Unmerged is exact: each adapted linear gives y + s·B(Ax), two small products in a hook, and the base's
weights stay as they are. Merged is what `adapters fuse` would ship: the sum rounded to the base's dtype.
"""

import contextlib
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING

from adapters.store import Adapter
from adapters.weighted import WeightedAdapter
from core.errors import ContentError

if TYPE_CHECKING:
    import torch
    from torch.nn import Module

    from eval.backends.load import Model


def check_fits(model: "Model", adapter: Adapter) -> None:
    """Raise `ContentError` unless the model has every module of the adapter, in its shape."""
    modules = dict(model.net.named_modules())
    for path, layout in adapter.layout.items():
        found = _sizes(modules.get(path))
        if found != sorted((layout.outputs, layout.inputs)):
            raise ContentError(
                f"adapter {adapter.folder}: {path} is {layout.outputs}×{layout.inputs}, the model has "
                f"{'×'.join(map(str, found)) if found else 'no such module'}: "
                f"trained on another base ({adapter.base or 'its config names none'})"
            )
    for path in adapter.full_tensors:
        if (
            path not in model.net.state_dict()
            or model.net.state_dict()[path].shape != adapter.full_tensor(path).shape
        ):
            raise ContentError(
                f"adapter {adapter.folder}: {path} does not fit the model: another base, or a larger "
                "vocabulary (fuse it: python -m adapters fuse makes a model that can be scored)"
            )


def _sizes(module: "Module | None") -> list[int] | None:
    """Return the two sizes of a linear's or an embedding's weight, smaller first; None if it is neither."""
    import torch

    if isinstance(module, torch.nn.Linear):  # a quantised one has a weight of another shape
        return sorted((module.in_features, module.out_features))
    weight = getattr(module, "weight", None)
    return None if weight is None else sorted(weight.shape)


@contextlib.contextmanager
def applied(model: "Model", parts: Sequence[WeightedAdapter], merged: bool = False) -> Iterator[None]:
    """Let the model answer as the base + Σ weight·ΔW of the parts (none: the base) while it lasts."""
    with contextlib.ExitStack() as stack:
        for name in dict.fromkeys(name for part in parts for name in part.adapter.full_tensors):
            holders = [part for part in parts if name in part.adapter.full_tensors]
            stack.enter_context(_replaced(model, holders, name))
        for path in dict.fromkeys(path for part in parts for path in part.adapter.modules):
            holders = [part for part in parts if path in part.adapter.layout]
            stack.enter_context((_merged if merged else _unmerged)(model, holders, path))
        yield


@contextlib.contextmanager
def _unmerged(model: "Model", parts: Sequence[WeightedAdapter], path: str) -> Iterator[None]:
    module = model.net.get_submodule(path)
    a, b = (t.to(model.device, model.net.dtype) for t in _factors(parts, path))
    hook = _beside_embedding(a, b) if _kind(parts, path) == "embedding" else _beside_linear(a, b)
    handle = module.register_forward_hook(hook)
    try:
        yield
    finally:
        handle.remove()


@contextlib.contextmanager
def _merged(model: "Model", parts: Sequence[WeightedAdapter], path: str) -> Iterator[None]:
    import torch

    weight = model.net.get_submodule(path).weight
    kept = weight.clone()
    a, b = (t.to(model.device) for t in _factors(parts, path))
    change = b @ a
    transposed = _kind(parts, path) == "embedding" or parts[0].adapter.lora.fan_in_fan_out
    with torch.no_grad():
        weight.copy_(weight.float() + (change.T if transposed else change))
        try:
            yield
        finally:
            weight.copy_(kept)


@contextlib.contextmanager
def _replaced(model: "Model", parts: Sequence[WeightedAdapter], name: str) -> Iterator[None]:
    """Set a parameter that adapters keep whole to W₀ + Σ weight·(W − W₀); a tied twin of it keeps W₀."""
    import torch

    owner, _, leaf = name.rpartition(".")
    module = model.net.get_submodule(owner)
    kept = getattr(module, leaf)
    if [part.weight for part in parts] == [1.0]:
        value = torch.from_numpy(
            parts[0].adapter.full_tensor(name)
        )  # its bytes, without a rounding of the sum
    else:
        start = kept.detach().double().cpu()
        wholes = (part.weight * (torch.from_numpy(part.adapter.full_tensor(name)) - start) for part in parts)
        value = sum(wholes, start)
    setattr(module, leaf, torch.nn.Parameter(value.to(model.device, kept.dtype), requires_grad=False))
    try:
        yield
    finally:
        setattr(module, leaf, kept)


def _kind(parts: Sequence[WeightedAdapter], path: str) -> str:
    return parts[0].adapter.layout[path].kind


def _factors(parts: Sequence[WeightedAdapter], path: str) -> "tuple[torch.Tensor, torch.Tensor]":
    """Return A [rank, inputs] and weight·s·B [outputs, rank] in fp32, the parts' ranks one after another."""
    import torch

    pairs = [(*part.adapter.factors(path), part.weight * part.adapter.scale(path)) for part in parts]
    downs = [torch.from_numpy(a) for a, _, _ in pairs]
    ups = [torch.from_numpy(b) * scale for _, b, scale in pairs]  # scaled before any rounding
    return torch.cat(downs), torch.cat(ups, dim=1)


def _beside_linear(a: "torch.Tensor", b: "torch.Tensor") -> Callable[..., "torch.Tensor"]:
    def hook(_: "Module", inputs: "tuple[torch.Tensor, ...]", output: "torch.Tensor") -> "torch.Tensor":
        x = inputs[0].reshape(-1, a.shape[1])
        return output.view(-1, b.shape[0]).addmm_(x @ a.T, b.T).view(output.shape)

    return hook


def _beside_embedding(a: "torch.Tensor", b: "torch.Tensor") -> Callable[..., "torch.Tensor"]:
    import torch

    def hook(_: "Module", inputs: "tuple[torch.Tensor, ...]", output: "torch.Tensor") -> "torch.Tensor":
        return output + torch.nn.functional.embedding(inputs[0], a.T) @ b.T

    return hook
