"""The scored runs of a sweep, as `eval compare` reads them.

Of a sweep of weights or checkpoints (`eval sweep`) these are the runs on the examples that it did not choose
on, of a sweep of trainings (`recipe sweep`) the settings, each as arguments of a comparison.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tuneyard.core.errors import ContentError
from tuneyard.core.files import read_object
from tuneyard.core.language.message import _
from tuneyard.core.records.points_record import ReportedModels
from tuneyard.core.records.record import as_record, read_record
from tuneyard.core.records.results_record import Hashes, ResultsRecord
from tuneyard.core.records.sweep_record import TrainingSweep
from tuneyard.core.training.sweeps import POINTS, SEEDS, SWEEP, points_file
from tuneyard.core.training.sweeps import RESULTS as OF_TRAINING
from tuneyard.eval.runs.findings import ChosenSetting, FailedTraining, RunFinding
from tuneyard.eval.runs.results import BASE, HELD_OUT, RESULTS
from tuneyard.eval.runs.scored_run import ScoredRun

HALVES = "halves"  # in the settings of its runs: the rows that were scored
STEP = "step"  # the axis of a run's checkpoints


def held_out_runs(folder: Path) -> tuple[Path, list[str]]:
    """The folder of a sweep's runs on the held-out halves, and the models that are reported on them."""
    points = points_file(folder) or folder / POINTS
    models = read_record(points, ReportedModels)["reported"]
    if not (folder / HELD_OUT).is_dir():
        raise ContentError(
            _(
                "{path}: no {file} models with runs in {folder}: sweep again",
                path=points,
                file="reported",
                folder=folder / HELD_OUT,
            )
        )
    return folder / HELD_OUT, models


def has_chosen(run: ScoredRun) -> bool:
    """True if a sweep has chosen by these rows: they are a half, and its points.json is beside the model."""
    if run.facts.get("settings", {}).get("rows") != HALVES:
        return False
    return points_file(Path(run.source).resolve().parents[1]) is not None


@dataclass(frozen=True, slots=True)
class TrainedSweep:
    """A sweep of trainings as arguments of a comparison."""

    sources: list[str]
    """`MODEL=FOLDER` of each scored folder."""
    replicates: list[str]
    """`NAME=MODEL,MODEL` of each setting with several seeds."""
    chooses: bool
    """True if there are several settings of one training each, and a base to compare them with."""
    findings: list[RunFinding]


def read_trained_sweep(folder: Path) -> TrainedSweep | None:
    """Read the folder of a sweep of trainings; None for any other folder.

    Runs that differ in their seeds alone are one setting. A run that failed, such as a diverged one, is left
    out. `ContentError` if a run has results of several adapters, or of another base than the
    others.
    """
    if not (folder / SWEEP).is_file():
        return None
    content = read_object(folder / SWEEP)
    if "grid" not in content:
        return None
    sweep = as_record(content, folder / SWEEP, TrainingSweep)
    findings: list[RunFinding] = [FailedTraining(row["run"]) for row in sweep.get("failed", [])]
    axes = [axis for axis in sweep["grid"] if axis not in SEEDS]
    runs_of: dict[tuple[object, ...], list[Path]] = {}
    for row in sweep["rows"]:
        run = folder / Path(row["run"]).name
        runs_of.setdefault(tuple(row.get(axis) for axis in axes), []).append(run)
    base_folders: dict[str, Path] = {}
    sources: list[str] = []
    replicates: list[str] = []
    for values, runs in runs_of.items():
        settings = [f"{key} {value}" for key, value in zip(axes, values, strict=True)]
        # without the characters that part models from datasets and folders
        name = re.sub("[/=]", "-", ", ".join(settings)) or "the recipe"
        models = [run.name for run in runs]
        if len(runs) == 1:
            models = [name]
        for model, run in zip(models, runs, strict=True):
            scored = _scored_folders(run / OF_TRAINING)
            _add_base(base_folders, scored.pop(BASE, []))
            if len(scored) != 1:
                raise ContentError(
                    _(
                        "{place}: expected results of one adapter, found {names}",
                        place=run / OF_TRAINING,
                        names=", ".join(scored) or _("none"),
                    )
                )
            sources += [f"{model}={path}" for paths in scored.values() for path in paths]
        if len(models) > 1:
            replicates.append(f"{name}={','.join(models)}")
    if not sources:
        failed = [Path(row["run"]).name for row in sweep.get("failed", ())]
        if failed:
            raise ContentError(
                _(
                    "{folder}: no run of this sweep has results ({runs} failed); tuneyard recipe sweep "
                    "goes on with it",
                    folder=folder,
                    runs=", ".join(failed),
                )
            )
        raise ContentError(
            _(
                "{folder}: no run of this sweep has ended; tuneyard recipe sweep goes on with it",
                folder=folder,
            )
        )
    sources = [f"{BASE}={path}" for path in base_folders.values()] + sources
    chooses = bool(base_folders) and not replicates and len(runs_of) > 1
    if chooses:
        findings.append(ChosenSetting(folder))
    return TrainedSweep(sources, replicates, chooses, findings)


def _scored_folders(results: Path) -> dict[str, list[Path]]:
    """Folders with results.json below `results`, by the model that they name."""
    folders: dict[str, list[Path]] = {}
    for path in sorted(results.rglob(RESULTS)):
        model = read_record(path, ResultsRecord)["model"]
        folders.setdefault(model, []).append(path.parent)
    return folders


def _add_base(base_folders: dict[str, Path], scored: Sequence[Path]) -> None:
    """Add a run's results of the base, by dataset. `ContentError` if they are of another base than before."""
    for folder in scored:
        result = read_record(folder / RESULTS, ResultsRecord)
        first = base_folders.setdefault(result["dataset"], folder)
        hashes: Hashes = result.get("hashes", {})
        first_hashes: Hashes = read_record(first / RESULTS, ResultsRecord).get("hashes", {})
        differing = [name for name, value in hashes.items() if first_hashes.get(name, value) != value]
        if differing:
            raise ContentError(
                _(
                    "{folder}: its base differs from that of {other} ({names}); score all runs with the "
                    "same base, or without one (--no-base)",
                    folder=folder,
                    other=first,
                    names=", ".join(differing),
                )
            )
