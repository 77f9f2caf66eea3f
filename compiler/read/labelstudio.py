"""Label Studio's export: annotations that their annotator cancelled are no labels."""

from tuneyard.compiler.rows import Fields, are_objects

ANNOTATIONS = "annotations"
"""The key of a task's annotations."""
CANCELLED = "was_cancelled"
"""The key of this mark in an annotation."""
LEFT_OUT = "cancelled_annotations"
"""The column with the number of annotations that are left out."""


def has_form(row: Fields) -> bool:
    """True for a task of Label Studio: its data, and a list of annotations with their results."""
    annotations = row.get(ANNOTATIONS)
    if not isinstance(row.get("data"), dict) or not isinstance(annotations, list):
        return False
    return all(isinstance(each, dict) and isinstance(each.get("result"), list) for each in annotations)


def without_cancelled(row: Fields) -> Fields:
    """Leave cancelled annotations out. A column has their number, so that they are counted as left out."""
    annotations = row.get(ANNOTATIONS)
    if not are_objects(annotations):
        return row
    kept = [annotation for annotation in annotations if annotation.get(CANCELLED) is not True]
    if len(kept) == len(annotations):
        return row
    return {**row, ANNOTATIONS: kept, LEFT_OUT: len(annotations) - len(kept)}
