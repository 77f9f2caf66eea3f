"""The verdict on the scored runs of a sweep: `tuneyard eval compare` on its folder."""

import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tuneyard.core.errors import ContentError
from tuneyard.core.files import read_object
from tuneyard.core.installation.checkout import python_path
from tuneyard.core.language.reader_language import ENGLISH, current

VERDICT = "verdict"  # folder of the comparison in that of the sweep


def judge(sweep: Path, metric: str) -> tuple[str, str]:
    """Compare the settings of a sweep by their scored examples: the verdict in English, and what was printed.

    `ContentError` with the last line of the command if it fails: results without the examples, other rows.
    """
    out = sweep / VERDICT
    words = ["eval", "compare", str(sweep), "--out", str(out), "--force"]
    if metric != "accuracy":
        words += ["--metric", metric]
    if current() != ENGLISH:
        words += ["--lang", current()]
    done = subprocess.run(
        [sys.executable, "-P", "-m", "tuneyard", *words],
        check=False,
        capture_output=True,
        encoding="utf-8",
        env={**os.environ, "PYTHONPATH": python_path()},
    )
    if done.returncode:
        reason = done.stderr.strip().splitlines()[-1:] or [f"exit code {done.returncode}"]
        raise ContentError(f"tuneyard eval compare: {reason[0].removeprefix('error: ')}")
    table: Mapping[str, Any] = read_object(out / "table.json")
    sections: Mapping[str, Any] = table["sets"]
    if isinstance(table.get("mean"), Mapping):
        sections = {"mean": table["mean"]}
    return " ".join(str(section["verdict"]) for section in sections.values()), done.stdout
