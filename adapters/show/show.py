"""Inspect adapters: what each module changes, and how similar the adapters are.

`show` has no result that it could find again: it prints, and `--plot` draws its pictures anew.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tuneyard.adapters.model.adapter import Adapter
from tuneyard.adapters.model.parents import find_missing_parents
from tuneyard.adapters.model.store import open_any
from tuneyard.adapters.model.unlearned import unlearned_notes
from tuneyard.adapters.show.statistics import AdapterStatistics, Matrix, measure, similarity
from tuneyard.core.errors import RequestError
from tuneyard.core.language.message import _


@dataclass(frozen=True, slots=True)
class InspectRequest:
    """A `show` command: adapters by their references, and a folder for pictures."""

    references: Sequence[str]
    plot: Path | None = None
    histograms: bool = False


@dataclass(frozen=True, slots=True)
class InspectResult:
    """Statistics of each adapter, their cosine similarities, notes, pictures and the next command."""

    adapters: list[AdapterStatistics[Any]]
    cosines: Matrix
    notes: Sequence[str]
    pictures: Sequence[Path]
    command: Sequence[object]


def all_modules(adapter: Adapter) -> Iterable[str]:
    """The modules of an adapter without a sign of progress."""
    return adapter.modules


def show(
    request: InspectRequest, progress: Callable[[Adapter], Iterable[str]] = all_modules
) -> InspectResult:
    """Measure adapters and draw them. `progress` gives the modules of an adapter, as `tqdm` does.

    `RequestError` before anything is measured if an adapter is missing or cannot be drawn.
    """
    if request.plot:
        from tuneyard.adapters.show.plots import check_folder

        check_folder(request.plot)
    opened = [open_any(reference) for reference in request.references]
    for adapter in opened:
        if request.plot and adapter.NOT_DRAWN:
            raise RequestError(
                _("{name}: {not_drawn}; leave --plot out", name=adapter.name, not_drawn=adapter.NOT_DRAWN)
            )
    histograms = request.histograms or request.plot is not None
    measured = [measure(adapter, progress(adapter), histograms=histograms) for adapter in opened]
    pairs = list(zip(opened, measured, strict=True))
    cosines = []
    for one, first in pairs:
        cosines.append([similarity(one, other, first.norm, second.norm) for other, second in pairs])
    pictures: list[Path] = []
    if request.plot:
        from tuneyard.adapters.show.plots import draw

        pictures = list(draw(request.plot, measured, cosines))
    notes = list(unlearned_notes(opened))
    missing_parents = find_missing_parents(opened, None)
    if missing_parents:
        notes.append(missing_parents.message)
        return InspectResult(measured, cosines, notes, pictures, missing_parents.command)
    return InspectResult(measured, cosines, notes, pictures, _next_command(request.references, opened))


def _next_command(references: Sequence[str], opened: Sequence[Adapter]) -> list[object]:
    """Fuse an adapter that needs its base, merge several, or export one."""
    for adapter in opened:
        if adapter.NOT_MERGED or adapter.full_tensors:
            return [*adapter.fuse_words(adapter.config.base or "BASE")]
    if len(references) > 1:
        weighted = [f"{reference}={1 / len(references):.2g}" for reference in references]
        return ["tuneyard", "adapter", "merge", *weighted, "--out", "saves/merge"]
    modelfile = Path("ollama", opened[0].name, "Modelfile")
    return ["tuneyard", "adapter", "export", references[0], "--to", "ollama", "--out", modelfile]
