"""Label Studio's export: annotations that their annotator cancelled are no labels."""

from tuneyard.compiler.rows import Fields, are_objects

ANNOTATIONS = "annotations"
"""The key of a task's annotations."""
CANCELLED = "was_cancelled"
"""The key of this mark in an annotation. In a row it is the number of those that are left out."""


def without_cancelled(row: Fields) -> Fields:
    """Leave cancelled annotations out. A column has their number, so that they are counted as left out."""
    annotations = row.get(ANNOTATIONS)
    if not are_objects(annotations):
        return row
    kept = [annotation for annotation in annotations if annotation.get(CANCELLED) is not True]
    if len(kept) == len(annotations):
        return row
    return {**row, ANNOTATIONS: kept, CANCELLED: len(annotations) - len(kept)}
