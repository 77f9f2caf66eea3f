"""The verdict on scored trainings, by `tuneyard eval compare` on their examples.

`recipe sweep` and `recipe best` run this command and read its files.
"""

import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tuneyard.core.errors import ContentError
from tuneyard.core.files import read_object
from tuneyard.core.installation.checkout import python_path
from tuneyard.core.language.reader_language import ENGLISH, current

BASE = "base"
RESULTS = "results.json"
PLAIN = "accuracy"
VERDICT = "verdict"  # folder of the comparison in that of the trainings


@dataclass(frozen=True, slots=True)
class Judgement:
    """The comparison that `eval compare` wrote: its folder, its decision and table.json."""

    folder: Path
    decision: str
    table: Mapping[str, Any]


def scored_folders(results: Path) -> dict[str, list[Path]]:
    """Folders with results.json below `results`, by the model that they name."""
    folders: dict[str, list[Path]] = {}
    for path in sorted(results.rglob(RESULTS)):
        model = str(read_object(path).get("model"))
        folders.setdefault(model, []).append(path.parent)
    return folders


def judge(
    folders_of: Mapping[str, Sequence[Path]], metric: str, options: Sequence[str], out: Path, title: str
) -> Judgement:
    """Compare models by a figure of their examples. `folders_of` are the scored folders of each model.

    `ContentError` with the last line of the command if it fails: results without the examples, other rows.
    """
    words = ["eval", "compare"]
    for model, folders in folders_of.items():
        words += [f"{model}={folder}" for folder in folders]
    if metric != PLAIN:
        words += ["--metric", metric]
    words += [*options, "--out", str(out), "--force", "--title", title]
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
    text = (out / "table.md").read_text(encoding="utf-8")
    decision, _, _ = text.partition("\n\n## ")
    return Judgement(out, decision, read_object(out / "table.json"))


def verdict_of(judgement: Judgement) -> str:
    """The verdict in English, as table.json has it, for programs."""
    mean = judgement.table.get("mean")
    if isinstance(mean, Mapping):
        return str(mean["verdict"])
    sections: Mapping[str, Mapping[str, Any]] = judgement.table["sets"]
    return " ".join(str(section["verdict"]) for section in sections.values())
