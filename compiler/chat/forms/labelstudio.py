"""Label Studio's export: cancelled annotations are no labels, a choice between two answers makes a pair."""

from tuneyard.compiler.chat.forms import preferred
from tuneyard.compiler.rows import Fields, are_objects, without
from tuneyard.compiler.spec.export_forms import ExportForm

ANNOTATIONS = "annotations"
"""The key of a task's annotations."""
CANCELLED = "was_cancelled"
"""The key of this mark in an annotation."""
PAIRWISE = "pairwise"
"""The type of the choice between two texts of a task."""
LEFT_OUT = "cancelled_annotations"
"""The column with the number of annotations that are left out."""


def has_form(row: Fields) -> bool:
    """True for a task of Label Studio: its data, and a list of annotations with their results."""
    annotations = row.get(ANNOTATIONS)
    if not isinstance(row.get("data"), dict) or not isinstance(annotations, list):
        return False
    return all(isinstance(each, dict) and isinstance(each.get("result"), list) for each in annotations)


def as_example(row: Fields) -> Fields:
    """A task with the annotations that count, and with `chosen` and `rejected` after a pairwise choice."""
    row = _without_cancelled(row)
    data, selected = row.get("data"), _selected(row)
    if not isinstance(data, dict) or selected is None:
        return row
    return preferred.with_chosen({**without(row, "data", ANNOTATIONS), **data, preferred.SELECTED: selected})


def _selected(row: Fields) -> object:
    """The side of the first annotator's pairwise choice, None if there is none."""
    annotations = row.get(ANNOTATIONS)
    if not are_objects(annotations):
        return None
    results = annotations[0].get("result")
    for result in results if isinstance(results, list) else ():
        if isinstance(result, dict) and result.get("type") == PAIRWISE:
            value = result.get("value")
            return value.get(preferred.SELECTED) if isinstance(value, dict) else None
    return None


def _without_cancelled(row: Fields) -> Fields:
    """Leave cancelled annotations out. A column has their number, so that they are counted as left out."""
    annotations = row.get(ANNOTATIONS)
    if not are_objects(annotations):
        return row
    kept = [annotation for annotation in annotations if annotation.get(CANCELLED) is not True]
    if len(kept) == len(annotations):
        return row
    return {**row, ANNOTATIONS: kept, LEFT_OUT: len(annotations) - len(kept)}


LABEL_STUDIO = ExportForm("label_studio", has_form, as_example)
