"""`labels:` of a spec: the keys by which raw labels are looked up."""

from typing import cast

from tuneyard.compiler.rows import MISSING
from tuneyard.compiler.spec.model import Spec

Values = list[object]


def label_keys(spec: Spec) -> dict[object, object]:
    """Return the key of a raw label → what we write; numbers also as tables have them: 1, 1.0 and "True"."""
    pairs = [(raw, ours) for ours, raws in spec.labels.items() for raw in raws]
    keys = keys_of([raw for raw, _ in pairs])
    numbers = [(raw, ours) for raw, ours in pairs if not isinstance(raw, str)]
    cells: dict[object, object] = {text: ours for raw, ours in numbers for text in _as_cells(raw)}
    return cells | {key: ours for key, (_, ours) in zip(keys, pairs, strict=True)}


def _as_cells(raw: object) -> tuple[str, ...]:
    if isinstance(raw, bool):
        return str(raw), str(raw).lower(), str(raw).upper()
    number = cast("float", raw)
    return (str(int(number)), f"{int(number)}.0") if float(number).is_integer() else (str(number),)


def keys_of(labels: Values) -> Values:
    """Return what labels are looked up by: `true` is 1 to Python; lists and objects are no labels."""
    if set(map(type, labels)) <= {int, float, str}:
        return labels
    known = [label if isinstance(label, int | float | str) else MISSING for label in labels]
    return [(label,) if isinstance(label, bool) else label for label in known]
