"""The command that scores a merge next to its adapters and their base: the next one after `adapter merge`."""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from tuneyard.core.datasets import eval_split, read_registry, registry_folder
from tuneyard.core.datasets.scoring_command import scoring_options
from tuneyard.core.errors import TuneyardError
from tuneyard.core.training.parent_adapters import parent_adapters

if TYPE_CHECKING:
    from tuneyard.adapters.merge.merge import MergePlan


def after_merge(plan: "MergePlan") -> list[str]:
    """Words of the command, on the held-out rows of the adapters' training datasets. [] without any."""
    bases = {weighted.adapter.config.base for weighted in plan.weighted}
    base = bases.pop() if len(bases) == 1 else None
    out = plan.request.out
    if base is None:
        return []
    try:
        folder = registry_folder()
        registered = read_registry(folder)
        names: list[str] = []
        for datasets in plan.datasets:
            names += [eval_split(str(entry["dataset"]), registered) for entry in datasets]
        options = scoring_options(names, folder)
        references = list(_scored_alone(plan))
    except TuneyardError:  # a hint is no place for an error of a file that the next command reads itself
        return []
    if not options:
        return []
    words = ["tuneyard", "eval", options[0], "--model", base]
    for reference in references:
        words += ["--adapter", reference]
    return [*words, "--adapter", str(out), *options[1:], "--out", f"results/{Path(out).name}"]


def _scored_alone(plan: "MergePlan") -> Iterator[str]:
    """Yield the references of the adapters that were not trained on top of others."""
    weighted_adapters = iter(plan.weighted)  # without those of weight 0
    for reference, weight in plan.request.adapters:
        if not weight or not parent_adapters(next(weighted_adapters).adapter.folder):
            yield str(reference)
