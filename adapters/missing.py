"""Missing tensors, found by an adapter's own regularity: PEFT fills them with zeros and only warns.

Without the base nobody knows how many modules `q_proj` means. But a layer that lacks what its
neighbours have, or a layer missing among others, is a lost tensor far more often than an
architecture; those that do vary (every fourth layer another attention, the last ones sharing keys)
vary regularly, and are let through.
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
    if _says_itself(config):
        return None
    layers: dict[str, dict[int, set[str]]] = {}
    parents: dict[tuple[str, str], dict[int, set[str]]] = {}
    for module in modules:
        found = re.match(r"(.*?)\.(\d+)\.(.*)$", f".{module}")
        if found:
            stack, number, rest = found[1].removeprefix("."), int(found[2]), found[3]
            parent, _, name = rest.rpartition(".")
            layers.setdefault(stack, {}).setdefault(number, set()).add(rest)
            parents.setdefault((stack, parent), {}).setdefault(number, set()).add(name)
    gaps = [_missing_layer(stack, found) for stack, found in layers.items()]
    gaps += [_missing_sibling(*key, found) for key, found in parents.items()]
    return next((gap for gap in gaps if gap), None)


def _says_itself(config: LoraConfig) -> bool:
    fields = [config.raw.get(name) or [] for name in ("target_modules", "exclude_modules")]
    paths = any(not isinstance(names, list) or any("." in name for name in names) for names in fields)
    return paths or not fields[0] or config.raw.get("layers_to_transform") not in (None, [])


def _missing_layer(stack: str, found: dict[int, set[str]]) -> str | None:
    numbers = sorted(found)
    if _even(numbers) and (numbers[0] == 0 or numbers[-1] - numbers[0] >= 2 * len(numbers) - 2 > 0):
        return None
    absent = [number for number in range(numbers[-1] + 1) if number not in found]
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
    path = (stack, str(numbers[0]), parent, min(lacking[numbers[0]]))
    return ".".join(part for part in path if part)


def _even(numbers: Sequence[int]) -> bool:
    return len({after - before for before, after in pairwise(numbers)}) <= 1
