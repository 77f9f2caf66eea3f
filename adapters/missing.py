"""Missing tensors, found by an adapter's own regularity: PEFT fills them with zeros and only warns.

A layer that lacks what its neighbours have, or is missing among others, is a lost tensor far more often than
an architecture; those that vary (every fourth layer another attention) vary regularly, and are let through.
"""

import re
from collections.abc import Iterable, Sequence
from itertools import pairwise

from adapters.config import LoraConfig

MOST_MISSING = 0.25  # of a span of layers; where more are absent, the architecture has few of the kind


def find_missing(config: LoraConfig, modules: Iterable[str]) -> str | None:
    """Return the path of a module or layer that seems to be missing, None where all is regular.

    Configs that name layers or whole paths, or a regular expression, say themselves what is there.
    """
    targets, excluded = (config.raw.get(name) or [] for name in ("target_modules", "exclude_modules"))
    paths = any(
        not isinstance(names, list) or any("." in name for name in names) for names in (targets, excluded)
    )
    if paths or not targets or config.raw.get("layers_to_transform") not in (None, []):
        return None
    siblings: dict[tuple[str, str], dict[int, set[str]]] = {}
    layers: dict[str, set[int]] = {}
    for module in modules:
        if found := re.match(r"(.*?)\.(\d+)\.(.*)$", f".{module}"):
            stack, (parent, _, name) = found[1].removeprefix("."), found[3].rpartition(".")
            layers.setdefault(stack, set()).add(int(found[2]))
            siblings.setdefault((stack, parent), {}).setdefault(int(found[2]), set()).add(name)
    gaps = [_missing_layer(stack, sorted(numbers)) for stack, numbers in layers.items()]
    gaps += [_missing_sibling(*key, found) for key, found in siblings.items()]
    return next(filter(None, gaps), None)


def _missing_layer(stack: str, numbers: list[int]) -> str | None:
    if _even(numbers) and (numbers[0] == 0 or numbers[-1] - numbers[0] >= 2 * len(numbers) - 2 > 0):
        return None
    absent = sorted(set(range(numbers[-1] + 1)) - set(numbers))
    if not absent or len(absent) > MOST_MISSING * (numbers[-1] + 1):
        return None
    return f"{stack}.{absent[0]}"


def _missing_sibling(stack: str, parent: str, found: dict[int, set[str]]) -> str | None:
    lacking = {
        number: next(other - names for other in found.values() if names < other)
        for number, names in found.items()
        if any(names < other for other in found.values())
    }
    numbers = sorted(lacking)
    if not numbers or (len(numbers) > 2 and _even(numbers)):
        return None
    return ".".join(filter(None, (stack, str(numbers[0]), parent, min(lacking[numbers[0]]))))


def _even(numbers: Sequence[int]) -> bool:
    return len({after - before for before, after in pairwise(numbers)}) <= 1
