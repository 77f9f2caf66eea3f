"""Refuse an adapter that was trained on other adapters and comes without them.

Its ΔW alone is not what was trained (`core.training.parent_adapters`). The sum of it and its parents is, and
so is the adapter on a base into which `adapter fuse` or another program has merged the parents.
"""

import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from tuneyard.adapters.model.adapter import Adapter, name_of
from tuneyard.adapters.model.merged_parents import merged_into
from tuneyard.adapters.model.store import open_any
from tuneyard.core.errors import ContentError, TuneyardError
from tuneyard.core.language.message import _, joined, typed
from tuneyard.core.language.messages import warn_once
from tuneyard.core.training.parent_adapters import (
    KEY,
    ParentAdapter,
    fuse_commands,
    last_parts,
    parent_adapters,
    path_word,
    sum_command,
    weights_hash,
)
from tuneyard.core.training.training_run import read_provenance
from tuneyard.core.weights.adapter_files import unwrapped_tensor


class MissingParents(NamedTuple):
    """The message on an adapter without its parents, and the first command of its fix."""

    message: str
    command: list[str]


def require_parents(adapters: Sequence[Adapter], base: Path | None) -> None:
    """`ContentError` if `find_missing_parents` finds any."""
    missing = find_missing_parents(adapters, base)
    if missing:
        raise ContentError(missing.message)


def find_missing_parents(adapters: Sequence[Adapter], base: Path | None) -> MissingParents | None:
    """Find an adapter of a sum that was trained on adapters which neither the sum nor `base` has.

    The parents of an adapter that is itself a parent here do not count: the training above it decided what
    was below. `base` is the folder to which the sum is added, if it is known. `ContentError` if a parent has
    changed since.
    """
    parents_by_adapter = [(adapter, _parents_of(adapter)) for adapter in adapters]
    below: set[Path] = set()
    for adapter, parents in parents_by_adapter:
        for other in adapters:
            if other is not adapter and any(_is(other, parent) for parent in parents):
                below.add(other.folder.resolve())
    fused = list(_fused_into(base))
    for adapter, parents in parents_by_adapter:
        remaining = [parent for parent in parents if not _is_fused(parent, fused)]
        if adapter.folder.resolve() in below or not remaining:
            continue
        for parent in remaining:
            _refuse_changed(adapter, parent)
        unmerged = _without_merged(adapter, remaining, base)
        missing = [parent for parent in unmerged if not any(_is(other, parent) for other in adapters)]
        opened = list(filter(None, (_opened(parent, adapters) for parent in unmerged)))
        reason = _not_a_sum(adapter, opened) if unmerged else ""
        if missing or reason:
            return _refusal(adapter, remaining, missing, opened, reason)
    return None


def parent_weight_notes(weights: Sequence[tuple[Adapter, float]]) -> Iterator[str]:
    """Yield notes on parents with another weight than the adapter on top: the training added both alike."""
    for adapter, weight in weights:
        parents = _parents_of(adapter)
        for parent in dict.fromkeys(parents):
            expected = parents.count(parent) * weight
            shares = [share for other, share in weights if other is not adapter and _is(other, parent)]
            total = math.fsum(shares)
            if shares and total != expected:
                yield _(
                    "{adapter} was trained on top of {parent}: the trained model has it with weight "
                    "{expected:g}, this sum with {total:g}",
                    adapter=adapter.name,
                    parent=parent.name,
                    expected=expected,
                    total=total,
                )


def _parents_of(adapter: Adapter) -> list[ParentAdapter]:
    """The parents by the record of the training. A damaged record gets a warning, and names none."""
    try:
        return parent_adapters(adapter.folder)
    except ContentError as error:
        warn_once(
            _(
                "{error}; whether {adapter} was trained on top of other adapters is not known",
                error=error,
                adapter=adapter.folder,
            )
        )
        return []


def _is(adapter: Adapter, parent: ParentAdapter) -> bool:
    """True if an adapter is this parent: by its hash, by its folder, or by its name if that moved."""
    if parent.weights_sha256:
        return adapter.weights_sha256 == parent.weights_sha256
    if parent.folder is not None and parent.folder.resolve() == adapter.folder.resolve():
        return True
    moved = parent.folder is None or not Path(parent.name).exists()
    return moved and last_parts(str(adapter.folder.resolve())) == last_parts(parent.name)


def _fused_into(base: Path | None) -> Iterator[dict[str, Any]]:
    """Yield the entries of the adapters that `adapter fuse` wrote into a base with the weight 1."""
    record = read_provenance(base) if base else None
    if record is None or record["command"] != "fuse":
        return
    for entry in record["adapters"]:
        if entry["weight"] == 1:
            yield entry


def _is_fused(parent: ParentAdapter, entries: Sequence[dict[str, Any]]) -> bool:
    expected = parent.weights_sha256
    if not expected and parent.folder is not None:
        expected = weights_hash(parent.folder)
    if expected:
        return any(entry["weights_sha256"] == expected for entry in entries)
    return any(last_parts(entry["folder"]) == last_parts(parent.name) for entry in entries)


def _without_merged(
    adapter: Adapter, parents: Sequence[ParentAdapter], base: Path | None
) -> Sequence[ParentAdapter]:
    """The parents that are not in the weights of `base`, compared with the base of the training."""
    trained_on = Path(adapter.config.base or "")
    if base is None or not adapter.config.base or not trained_on.is_dir():
        return parents
    if not base.is_dir() or base.resolve() == trained_on.resolve():
        return parents
    opened = [_opened(parent, []) for parent in parents]
    merged = merged_into(base, trained_on, [parent for parent in opened if parent is not None])
    folders = {parent.folder for parent in merged}
    return [parent for parent in parents if parent.folder not in folders]


def _refuse_changed(adapter: Adapter, parent: ParentAdapter) -> None:
    """`ContentError` if the parent's folder has other weights than those of the training."""
    if parent.folder is None or not parent.weights_sha256:
        return
    if weights_hash(parent.folder) != parent.weights_sha256:
        raise ContentError(
            _(
                "{path}: its weights are not those that {adapter} was trained on (hash {hash}… in "
                "{file}); bring those back, or train {adapter} again",
                path=parent.folder,
                adapter=adapter.folder,
                hash=parent.weights_sha256[:16],
                file=parent.record,
            )
        )


def _opened(parent: ParentAdapter, adapters: Sequence[Adapter]) -> Adapter | None:
    """A parent as an adapter: one of the sum, or its folder. None if it is in neither, or damaged."""
    for adapter in adapters:
        if _is(adapter, parent):
            return adapter
    if parent.folder is None:
        return None
    try:
        return open_any(parent.folder)
    except TuneyardError:  # the next command names the damage
        return None


def _not_a_sum(adapter: Adapter, parents: Sequence[Adapter]) -> str:
    """Reason why base + parents + adapter is no sum that can be written, "" if it is one."""
    if adapter.NOT_MERGED:
        return _("its ΔW depends on the base with them")
    for parent in parents:
        if parent.NOT_MERGED:
            return _("the ΔW of {adapter} depends on the base", adapter=parent.folder)
    changed = _changed_tensors(adapter)
    saved = {unwrapped_tensor(name) for name in adapter.full_tensors}
    for parent in parents:
        both = saved & _changed_tensors(parent)
        both |= changed & {unwrapped_tensor(name) for name in parent.full_tensors}
        for name in sorted(both):
            return _("both change {name}, which one of them saves in full", name=name)
    return ""


def _changed_tensors(adapter: Adapter) -> set[str]:
    names = {f"{path}.weight" for path in adapter.modules}
    names.update(unwrapped_tensor(name) for name in adapter.full_tensors)
    return names


def _refusal(
    adapter: Adapter,
    parents: Sequence[ParentAdapter],
    missing: Sequence[ParentAdapter],
    opened: Sequence[Adapter],
    reason: str,
) -> MissingParents:
    """The refusal of an adapter without its parents, with the command of the exact sum."""
    names = joined(parent.name for parent in parents)
    text = _(
        "{folder}: trained on top of {names} ({key} in {record}): its ΔW alone is not what was trained",
        folder=adapter.folder,
        names=names,
        key=KEY,
        record=parents[0].record,
    )
    moved = [parent.name for parent in missing if parent.folder is None]
    if moved:
        text = _(
            "{text}; not here: {names}: bring it back, or name its new folder in the command",
            text=text,
            names=joined(moved),
        )
    words = [*(path_word(str(parent.folder or parent.name)) for parent in parents), adapter.word]
    name = name_of(adapter.folder)
    base = adapter.config.base or "BASE"
    if reason:
        first, second = fuse_commands(words, name, base)
        text = _(
            "{text}; {reason}; expected two steps: {first} && {second}",
            text=text,
            reason=reason,
            first=typed(first),
            second=typed(second),
        )
        return MissingParents(text, first)
    saves_in_full = any(part.full_tensors for part in (adapter, *opened))
    command = sum_command(words, name, base if saves_in_full else None)
    return MissingParents(
        _("{text}; expected all of them in one sum: {command}", text=text, command=typed(command)),
        command,
    )
