"""Label Studio's export: annotations that their annotator cancelled are no labels."""

from collections.abc import Iterable

from tuneyard.compiler.rows import Fields, are_objects

ANNOTATIONS = "annotations"
"""The key of a task's annotations."""
CANCELLED = "was_cancelled"
"""The key of this mark in an annotation. In a row it is the number of those that are left out."""


def leave_out_cancelled(rows: Iterable[Fields]) -> None:
    """Take out cancelled annotations, and count them in a column, so that they are counted as left out."""
    for row in rows:
        annotations = row.get(ANNOTATIONS)
        if are_objects(annotations):
            kept = [annotation for annotation in annotations if annotation.get(CANCELLED) is not True]
            if len(kept) < len(annotations):
                row |= {ANNOTATIONS: kept, CANCELLED: len(annotations) - len(kept)}
