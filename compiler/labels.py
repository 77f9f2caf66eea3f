"""A spec's labels: what each raw one is mapped to, and which is meant where one is not known."""

from functools import lru_cache
from typing import cast

from compiler.rows import MISSING
from compiler.spec import Spec
from core.errors import nearest

Values = list[object]


def label_keys(spec: Spec) -> dict[object, object]:
    """Return the key of a raw label → what we write, or UNLABELLED.

    Numbers and truth values stand there as the texts of a table, too: 1, 1.0 and "True".
    """
    pairs = [(raw, ours) for ours, raws in spec.labels.items() for raw in raws]
    keys = keys_of([raw for raw, _ in pairs])
    lookup: dict[object, object] = {}
    lookup.update((text, ours) for raw, ours in pairs if not isinstance(raw, str) for text in _as_cells(raw))
    lookup.update((key, ours) for key, (_, ours) in zip(keys, pairs, strict=True))
    return lookup


def _as_cells(raw: object) -> tuple[str, ...]:
    """Return how tables write a number or a truth value."""
    if isinstance(raw, bool):
        return str(raw), str(raw).lower(), str(raw).upper()
    number = cast("float", raw)
    return (str(int(number)), f"{int(number)}.0") if float(number).is_integer() else (str(number),)


def keys_of(labels: Values) -> Values:
    """Return what labels are looked up by: `true` is 1 to Python; lists and objects are no labels."""
    if set(map(type, labels)) <= {int, float, str}:
        return labels
    plain = (int, float, str)
    return [
        (label,) if isinstance(label, bool) else label if isinstance(label, plain) else MISSING
        for label in labels
    ]


@lru_cache(1000)
def nearest_label(label: str, options: tuple[str, ...]) -> str:
    """Return the hint for a label; a wrong one often stands in every row, and looking takes 70 µs."""
    return nearest(label, options)
