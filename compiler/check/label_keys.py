"""Keys of raw labels, by which a spec's label is found: `true` is not 1, and a table's "1.0" is 1."""

from typing import Any

from tuneyard.compiler.rows import MISSING
from tuneyard.compiler.spec.column_types import Values
from tuneyard.compiler.spec.model import Spec


def label_keys(spec: Spec) -> dict[object, object]:
    """The label to write, by the key of each raw label.

    A number is also looked up by the spellings of tables: 1, 1.0, "True".
    """
    label_by_cell: dict[object, object] = {}
    label_by_key: dict[object, object] = {}
    for label, raw_labels in spec.labels.items():
        label_by_key |= dict.fromkeys(keys_of(list(raw_labels)), label)
        for raw in raw_labels:
            if not isinstance(raw, str):
                label_by_cell |= dict.fromkeys(_as_cells(raw), label)
    return label_by_cell | label_by_key


def _as_cells(raw: Any) -> tuple[str, ...]:
    """The spellings of a number or a truth value in the cells of a table."""
    if isinstance(raw, bool):
        return str(raw), str(raw).lower(), str(raw).upper()
    if float(raw).is_integer():
        return str(int(raw)), f"{int(raw)}.0"
    return (str(raw),)


def keys_of(labels: Values) -> Values:
    """The keys of raw labels. `true` has another one than 1, which Python takes for equal."""
    if set(map(type, labels)) <= {int, float, str}:
        return labels
    keys: Values = []
    for label in labels:
        if isinstance(label, bool):
            keys.append((label,))
        elif isinstance(label, int | float | str):
            keys.append(label)
        else:  # lists and objects are no labels
            keys.append(MISSING)
    return keys
