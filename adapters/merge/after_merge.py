"""The command that scores a merge next to its adapters and their base: the next one after `adapter merge`."""

from collections.abc import Iterator, Sequence
from pathlib import Path

from tuneyard.adapters.merge.request import MergeRequest
from tuneyard.adapters.model.provenance import training_datasets
from tuneyard.adapters.model.store import open_adapter
from tuneyard.adapters.model.weighted import WeightedAdapter, open_weighted
from tuneyard.core.datasets import read_registry, registry_folder, reporting_splits
from tuneyard.core.datasets.scoring_command import scoring_options
from tuneyard.core.errors import TuneyardError
from tuneyard.core.training.parent_adapters import parent_adapters


def after_merge(request: MergeRequest) -> list[str]:
    """Words of the next command after a merge.

    It scores the merge on the held-out rows of the adapters' training datasets. Without any, `show` is next,
    or `fuse` if the user named a base.
    """
    out = request.out
    if request.base:
        words = ["tuneyard", "adapter", "fuse", str(out), "--base", str(request.base)]
        return [*words, "--out", f"models/{out.name}"]
    try:
        words = _scoring_command(request)
    except TuneyardError:  # a hint is no place for an error of a file that the next command reads itself
        words = []
    return words or ["tuneyard", "adapter", "show", str(out)]


def _scoring_command(request: MergeRequest) -> list[str]:
    """The command that scores a merge. [] without datasets, or if the adapters name no common base."""
    opened = open_weighted(request.adapters, open_adapter, request.base)
    weighted = [item for item in opened if item.weight]
    bases = {item.adapter.config.base for item in weighted}
    base = bases.pop() if len(bases) == 1 else None
    if base is None:
        return []
    folder = registry_folder()
    registered = read_registry(folder)
    names: list[str] = []
    for item in weighted:
        datasets = training_datasets(item.adapter.folder)
        names += reporting_splits([str(entry["dataset"]) for entry in datasets], [], registered)
    options = scoring_options(names, folder)
    if not options:
        return []
    words = ["tuneyard", "eval", options[0], "--model", base]
    for reference in _scored_alone(request, weighted):
        words += ["--adapter", reference]
    out = request.out
    return [*words, "--adapter", str(out), *options[1:], "--out", f"results/{Path(out).name}"]


def _scored_alone(request: MergeRequest, weighted: Sequence[WeightedAdapter]) -> Iterator[str]:
    """Yield the references of the adapters that were not trained on top of others."""
    weighted_adapters = iter(weighted)  # without those of weight 0
    for reference, weight in request.adapters:
        if not weight or not parent_adapters(next(weighted_adapters).adapter.folder):
            yield str(reference)
