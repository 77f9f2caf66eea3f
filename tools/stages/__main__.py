"""python -m tools.stages [--only STAGE/METHOD]: take every cell of the table and write it down.

Finished cells are in outcomes.json and are not run again (delete it, or one of them there), unless a library
has another version by now. A part of a name is enough for --only: dpo, /oft, kto/lora. docs/recipes.md gets
the table. Run it with a new release of LLaMA-Factory, transformers or PEFT, or after a change of how recipes
are checked or trained.
"""

import argparse
import json
import shutil
import sys
import time
import traceback
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from testing.stages.cells import CELLS
from testing.stages.walk import cells_below
from tools.stages.table import OUTCOMES, write_table
from tuneyard.core.files import versions, write_json

FOLDER = Path("build/stages")
CELL_FAILS = (AssertionError, OSError, LookupError, ValueError)
"""A file of a command is missing, has other fields or other figures than expected. The next cell goes on."""
LIBRARIES = ("llamafactory", "torch", "peft", "transformers")


def main() -> int:
    parser = argparse.ArgumentParser("python -m tools.stages", description=__doc__)
    parser.add_argument("--only", default="", metavar="STAGE/METHOD", help="Cells whose name has this in it.")
    options = parser.parse_args()
    names = [name for name in CELLS if options.only in name]
    if not names:
        parser.error(f"no cell with {options.only!r} in its name; the cells are {', '.join(CELLS)}")
    libraries = versions(*LIBRARIES)
    outcomes: dict[str, Any] = {"versions": libraries, "cells": {}}
    if OUTCOMES.is_file():
        kept = json.loads(OUTCOMES.read_text(encoding="utf-8"))
        if kept["versions"] == libraries:
            outcomes = kept
    missing = [name for name in names if name not in outcomes["cells"]]
    print(f"{len(names) - len(missing)} of {len(names)} cells are finished", flush=True)
    failed = []
    if missing:
        failed = run_cells(missing, outcomes)
    if len(outcomes["cells"]) == len(CELLS):
        write_table(outcomes)
    if failed:
        print(f"{len(failed)} cells failed: {', '.join(failed)}", file=sys.stderr)
    return bool(failed)


def run_cells(missing: list[str], outcomes: dict[str, Any]) -> list[str]:
    """Add the outcomes of cells, written down after each. Names of those that failed."""
    failed = []
    shutil.rmtree(FOLDER, ignore_errors=True)
    with cells_below(FOLDER) as run:
        for number, name in enumerate(missing, 1):
            started = time.monotonic()
            try:
                outcome = run(name)
            except CELL_FAILS:
                failed.append(name)
                print(f"{name} failed:\n{traceback.format_exc()[-3000:]}", file=sys.stderr)
                continue
            finished = outcomes["cells"]
            finished[name] = {**outcome, "date": datetime.now(UTC).date().isoformat()}
            outcomes["cells"] = {cell: finished[cell] for cell in CELLS if cell in finished}
            write_json(OUTCOMES, outcomes)
            wall = time.monotonic() - started
            print(f"{number}/{len(missing)} {name}: {outcome['outcome']} ({wall:.0f} s)", flush=True)
    return failed


if __name__ == "__main__":
    sys.exit(main())
