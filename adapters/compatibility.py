"""Compatibility of adapters with a base: each module there, of its shape, and none left out."""

import re
from collections.abc import Iterable, Iterator
from pathlib import Path

from adapters.base import Base, open_base, same_weights
from adapters.store import Adapter, Module
from adapters.weighted import WeightedAdapter
from core.errors import ContentError
from core.runs import RUN, model_sha256, run_of


def check_bases(base: Base, weighted: Iterable[WeightedAdapter], *, same: bool) -> Iterator[str]:
    """Refuse adapters that do not fit the base; yield what could not be checked (see `check_base`)."""
    for item in weighted:
        with item.adapter.lora.bounded():
            reason = next(_refusals(base, item.adapter), "") if item.weight else ""
        if reason:
            raise ContentError(reason)
    for item in weighted:
        if unchecked := check_base(item.adapter, base.folder, str(base.folder), same=same):
            yield unchecked


def check_base(adapter: Adapter, folder: Path, reference: str, *, same: bool) -> str:
    """Refuse an adapter whose config names another base than `folder`, which the user named `reference`.

    Where the named one is a folder here, the weights decide; else, unless the user says that both are the
    `same`, the model's hash that the training recorded; else the last part of the name, and what is returned
    says that no more could be checked. A 4-bit copy by Unsloth counts as the model that it was made from.
    """
    named = adapter.base
    if named is None or named == reference:
        return ""
    here, wrong = Path(named), f"adapter {adapter.folder}: trained on {named}"
    if (here / "config.json").is_file():
        if here.resolve() != folder.resolve() and not same_weights(open_base(here), open_base(folder)):
            raise ContentError(f"{wrong}, whose weights are not those of {reference}")
        return ""
    if same:
        return ""
    if isinstance(trained := (run_of(adapter.folder).get("model") or {}).get("sha256"), str):
        if trained != model_sha256(folder):
            raise ContentError(
                f"{wrong}, whose files had another hash ({trained[:16]}… in {RUN}) than those of "
                f"{reference}; where only other files than the weights differ, say so with --same-base"
            )
        return ""
    published = folder.resolve()
    if published.parent.name == "snapshots":  # the hub's cache: models--OWNER--NAME/snapshots/COMMIT
        published = Path(published.parent.parent.name.rpartition("--")[2])
    if _plain(named) not in (_plain(reference), _plain(published.name)):
        raise ContentError(
            f"{wrong}, not on {reference}, and {named} is no folder here whose weights could be compared; "
            "where both are the same model, say so with --same-base"
        )
    return (
        f"adapter {adapter.folder}: trained on {named}, which is not here: whether {reference} holds "
        f"the same weights could not be checked, only its name (no hash of the model in {RUN})"
    )


def _plain(name: str) -> str:
    """Return the last part of a model's name, without what Unsloth adds for its copies in 4 bits."""
    return re.sub("(-unsloth)?-bnb-4bit$", "", name.rstrip("/").rpartition("/")[2].casefold())


def transposed(adapter: Adapter, module: Module) -> bool:
    """Return whether the stored weight changes by (B·A)ᵀ: embeddings, and Conv1D layers (fan_in_fan_out)."""
    return module.kind == "embedding" or adapter.lora.fan_in_fan_out


def _refusals(base: Base, adapter: Adapter) -> Iterator[str]:
    """Yield which modules the base lacks or shapes otherwise, and which the file lacks of its targets."""
    for path, module in adapter.layout.items():
        stored = base.find(f"{path}.weight")
        expected = [module.outputs, module.inputs][:: -1 if transposed(adapter, module) else 1]
        if stored is None:
            yield f"{adapter.name}: {path}: {base.folder} has no such module: another base?"
        elif list(base.tensors[stored].shape) != expected:
            found = list(base.tensors[stored].shape)
            yield f"{adapter.name}: {path}: made for a weight of shape {expected}, {base.folder} has {found}"
    bias = next((name for name in base.tensors if name.endswith(".bias")), None)
    if bias and adapter.lora.bias == "all" and not any(n.endswith(".bias") for n in adapter.full_tensors):
        yield f"{adapter.weights.path}: bias 'all', but {bias} of {base.folder} is not in it"
    if adapter.config.get("target_modules") == "all-linear":  # PEFT writes the names themselves when it saves
        return
    for name, tensor in base.tensors.items():
        path = base.module_name(name).removesuffix(".weight")
        matrix = name.endswith(".weight") and len(tensor.shape) == 2
        if matrix and path not in adapter.layout and adapter.lora.targets(path):
            yield f"{adapter.weights.path}: {path} is missing, although its config targets it"
