"""Whether OUT has the comparison of a request already.

table.json records the `inputs` (each scored run and log by its hash, every option, the language of the page,
the release of Tuneyard, plug-ins) and the `outputs`, the hash of each other file.
"""

from collections.abc import Mapping, Sequence
from dataclasses import fields
from pathlib import Path

from tuneyard.core.errors import ContentError
from tuneyard.core.execution.state import (
    CURRENT,
    NEW,
    UNFINISHED,
    FileInput,
    Input,
    State,
    changed_outputs,
    compare_inputs,
)
from tuneyard.core.files import files_sha256, read_object, sha256, versions
from tuneyard.core.installation.checkout import release
from tuneyard.core.language.message import PathText, relative
from tuneyard.core.language.reader import current
from tuneyard.core.training.sweeps import points_file
from tuneyard.eval.compare.folder import JOURNAL
from tuneyard.eval.compare.request import CompareRequest
from tuneyard.eval.figures import plugin_inputs
from tuneyard.eval.runs.find import ScoredRunSource, find_scored_runs
from tuneyard.eval.runs.results import (
    HELD_OUT,
    TABLE_JSON,
    is_unfinished_comparison,
    recorded_inputs,
    recorded_outputs,
)

PACKAGES = ("numpy", "matplotlib")


def comparison_inputs(request: CompareRequest, sources: Sequence[ScoredRunSource]) -> dict[str, Input]:
    """What a comparison depends on. `sources` are those of the results, of a sweep those of its settings."""
    inputs: dict[str, Input] = {"RESULTS": list(request.results)}
    for each in fields(CompareRequest):
        if each.name in ("results", "out", "force", "command_line"):
            continue
        value = getattr(request, each.name)
        inputs[f"--{each.name.replace('_', '-')}"] = list(value) if isinstance(value, tuple) else value
    inputs["--lang"] = current()
    for source in sources:
        inputs |= _runs_of(source.path)
    return inputs | versions(*PACKAGES) | {"tuneyard": release()} | plugin_inputs()


def _runs_of(path: Path) -> dict[str, Input]:
    """Each scored run and log of a source by its hash; an unfinished run by its place."""
    inputs: dict[str, Input] = {}
    folder = path
    points = points_file(path)
    if points:
        inputs[PathText(relative(points))] = FileInput(sha256=sha256(points))
        folder = path / HELD_OUT
    whole, unfinished = find_scored_runs(folder)
    for place in whole:
        files = [place]
        if place.is_dir():
            files = sorted(file for file in place.glob("*.json*") if file.is_file())
        inputs[PathText(relative(place))] = FileInput(sha256=files_sha256(files))
    for place in unfinished:
        inputs[PathText(relative(place))] = FileInput(sha256="")
    return inputs


def comparison_state(out: Path, inputs: Mapping[str, Input]) -> State:
    """How far the comparison in a folder is, for these inputs. Nothing is written."""
    if (out / JOURNAL).exists() or is_unfinished_comparison(out):
        return UNFINISHED
    try:
        table = read_object(out / TABLE_JSON)
    except (ContentError, OSError):  # none, or a file of somebody else, which the command refuses
        return NEW
    changes = list(compare_inputs(recorded_inputs(table), inputs).changes)
    changes += changed_outputs(out, recorded_outputs(table))
    if changes:
        return State("stale", tuple(changes))
    return CURRENT
