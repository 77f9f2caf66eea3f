"""python -m tools.record_schemas: write core/schemas/ from the records in core/records/ (`make reference`).

Schemas of files that users write (specs' manifest, token weights, …) are written by hand.
"""

import importlib
import json
import pkgutil
import sys
from pathlib import Path

from tools.written import write_or_check
from tuneyard.core import records
from tuneyard.core.installation.checkout import ROOT
from tuneyard.core.records.record import record_formats

FOLDER = ROOT / "core/schemas"


def schema_texts() -> dict[Path, str]:
    """The text of each schema by its path."""
    for module in pkgutil.iter_modules(records.__path__):
        importlib.import_module(f"{records.__name__}.{module.name}")
    texts = {}
    for record_format in record_formats():
        if not record_format.type.__module__.startswith(records.__name__):
            continue  # a record of a test
        if not record_format.schema_file:
            continue
        path = FOLDER / record_format.schema_file
        texts[path] = json.dumps(record_format.schema, ensure_ascii=False, indent=2) + "\n"
    return texts


if __name__ == "__main__":
    sys.exit(write_or_check("tools.record_schemas", schema_texts()))
