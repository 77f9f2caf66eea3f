"""`tuneyard data view --loss`: score the first rows of a dataset in a subprocess."""

import os
import shlex
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tuneyard.core.errors import ContentError
from tuneyard.core.installation.checkout import python_path
from tuneyard.core.prompt.token_losses import TOKEN_LOSSES

SAVES = Path("saves")
"""Folder in which an adapter is looked for by its name."""
ADAPTED = "adapted"
BASE = "base"


@dataclass(frozen=True, slots=True)
class LossRequest:
    """What to score: a model, or its adapter (a folder, or a name in saves/), on the first rows of a dataset.

    `template` and `cutoff_len` are those of the page, None for the defaults.
    """

    model: str
    adapter: str | None
    dataset: str
    folder: Path
    rows: int
    template: object = None
    cutoff_len: object = None


@contextmanager
def scored_losses(request: LossRequest) -> Iterator[Path]:
    """Score the rows with `tuneyard eval text`. The file of their losses exists inside the block.

    `ContentError` if the scoring fails; its own message is on stderr then.
    """
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        words = scoring_words(request)
        python = [sys.executable, "-P", "-m"]
        ending_with_us = [*python, "tuneyard.recipes.launch", str(os.getpid())]
        if subprocess.run(
            [*ending_with_us, *python, "tuneyard", *words],
            cwd=folder,
            env={**os.environ, "PYTHONPATH": python_path()},
            stdin=subprocess.DEVNULL,
            stdout=sys.stderr,
            check=False,
        ).returncode:
            raise ContentError(f"--loss {request.model}: scoring failed: {shlex.join(['tuneyard', *words])}")
        model = BASE
        if request.adapter:
            model = ADAPTED
        yield folder / "results" / model / request.dataset / TOKEN_LOSSES


def scoring_words(request: LossRequest) -> list[str]:
    """The words of the command that scores the rows, with absolute paths."""
    words = ["eval", "text", "--model", _absolute(request.model), "--dataset", request.dataset]
    words += ["--dataset-dir", str(request.folder.resolve())]
    if request.adapter:
        words += [
            "--adapter",
            f"{ADAPTED}={_absolute(request.adapter, SAVES / request.adapter)}",
            "--no-base",
        ]
    if request.template:
        words += ["--template", str(request.template)]
    if request.cutoff_len:
        words += ["--max-seq-length", str(request.cutoff_len)]
    words += ["--limit", str(request.rows), "--no-generate", "--token-losses", "--out", "results"]
    return [*words, "--quiet"]  # its results are in a temporary folder


def _absolute(place: str, *other_places: Path) -> str:
    """Absolute path of the first place that exists. Without one, `place` unchanged: a name on the hub."""
    places: Sequence[Path] = (Path(place), *other_places)
    for path in places:
        if path.exists():
            return str(path.resolve())
    return place
