"""`labels:` of a spec: the keys by which raw labels are looked up."""

from typing import cast

from tuneyard.compiler.rows import MISSING
from tuneyard.compiler.spec.model import Spec

Values = list[object]


def label_keys(spec: Spec) -> dict[object, object]:
    """The label to write, by the key of each raw label.

    A number is also looked up by the spellings of tables: 1, 1.0, "True".
    """
    label_by_key: dict[object, object] = {}
    for label, raw_labels in spec.labels.items():
        for raw in raw_labels:
            if not isinstance(raw, str):
                label_by_key.update(dict.fromkeys(_as_cells(raw), label))
    for label, raw_labels in spec.labels.items():
        for key in keys_of(list(raw_labels)):
            label_by_key[key] = label
    return label_by_key


def _as_cells(raw: object) -> tuple[str, ...]:
    """The spellings of a number or a truth value in the cells of a table."""
    if isinstance(raw, bool):
        return str(raw), str(raw).lower(), str(raw).upper()
    number = cast("float", raw)
    if float(number).is_integer():
        return str(int(number)), f"{int(number)}.0"
    return (str(number),)


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
