"""The runs of a sweep on the examples that it did not choose on."""

from pathlib import Path

from tuneyard.core.errors import ContentError
from tuneyard.core.files import read_object
from tuneyard.eval.read.results import HELD_OUT

SWEEP = "sweep.json"
STEP = "step"  # the axis of a run's checkpoints
REPORTED = "reported"
"""In sweep.json: the base, each adapter alone and the chosen model, which the held-out half is scored for."""


def held_out_runs(folder: Path) -> tuple[Path, list[str]]:
    """The folder of a sweep's runs on the held-out halves, and the models that are reported on them."""
    models = read_object(folder / SWEEP).get(REPORTED)
    if not isinstance(models, list) or not (folder / HELD_OUT).is_dir():
        raise ContentError(
            f"{folder / SWEEP}: no {REPORTED} models with runs in {folder / HELD_OUT}: sweep again"
        )
    return folder / HELD_OUT, models
