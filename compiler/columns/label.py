"""Labels of a spec: `labels:` maps the values of a file to the words that a model answers with."""

from tuneyard.compiler.spec.column_types import ColumnType

LABEL = ColumnType(
    "label",
    {"description": "one of the spec's labels"},
    is_label=True,
    has_answer=True,
    shapes=("labelled pair", "labelled text"),
)
