"""The grid of a sweep: its settings, the names of its points, and a recipe for each."""

import hashlib
import itertools
import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tuneyard.core.errors import RequestError
from tuneyard.core.language.message import _
from tuneyard.core.text.secrets import is_secret
from tuneyard.recipes.recipe import Recipe, read_recipe
from tuneyard.recipes.recipe.schema import LISTS, SHORT

LIST = r"\[[^\[\]]*\]"  # one value of several words
LONGEST_NAME = 120  # bytes of a run's folder; file systems take 255 bytes, and checkpoints lie below it
TrainingRun = tuple[dict[str, str], Recipe]  # a point of the grid, and its recipe


@dataclass(frozen=True, slots=True)
class Grid:
    """Settings of a sweep: `axes` have several values each, `fixed` settings are the same in every run.

    So are `secrets`, which no file and no printed command has.
    """

    axes: dict[str, list[str]]
    fixed: dict[str, str]
    secrets: dict[str, str] = field(default_factory=dict, repr=False)


def parse_grid(arguments: Sequence[str]) -> Grid:
    """Split `key=v1,v2` arguments into axes and fixed settings.

    `RequestError` for a key without values, a duplicate key, `output_dir` (each run gets its
    folder), a list without brackets, and a grid in which no setting has several values.
    """
    axes = {}
    fixed = {}
    secrets = {}
    for argument in arguments:
        written_key, equals, text = argument.partition("=")
        key = SHORT.get(written_key, written_key)
        if equals and is_secret(key):
            secrets[key] = text
            continue
        values = _values(key, text)
        if not equals or not values:
            raise RequestError(
                _(
                    "{argument!r}: expected a setting and its values after the recipe, as in "
                    "lora_rank=4,8,16",
                    argument=argument,
                )
            )
        if key == "output_dir":
            raise RequestError(
                _(
                    "{argument!r}: each run has its own folder; name their parent by --out DIR",
                    argument=argument,
                )
            )
        if key in axes or key in fixed:
            raise RequestError(
                _(
                    "{argument!r}: {key} is given twice; write all its values into one argument",
                    argument=argument,
                    key=key,
                )
            )
        if len(values) > 1:
            axes[key] = values
        else:
            fixed[key] = values[0]
    if not axes:
        raise RequestError(
            _(
                "no setting has several values; expected an axis with each of its values, as in "
                "lora_rank=4,8 (one training: `tuneyard recipe train`)"
            )
        )
    return Grid(axes, fixed, secrets)


def _values(key: str, text: str) -> list[str]:
    """Split at the commas outside brackets. Each value comes once, a list without its brackets.

    LLaMA-Factory reads some settings as comma-separated lists. `RequestError` for a list without brackets,
    which could also be the values of a grid.
    """
    if "[" in re.sub(LIST, "", text) or "]" in re.sub(LIST, "", text):
        raise RequestError(
            _(
                "{key}={text}: a bracket has no partner; a list is written as [q_proj,v_proj]",
                key=key,
                text=text,
            )
        )
    pieces = re.findall(rf"(?:{LIST}|[^,\[\]])+", text)
    if key in LISTS and "," in text and "[" not in text:
        one, several = f"{key}=[{text}]", ",".join(f"[{piece}]" for piece in pieces)
        raise RequestError(
            _(
                "{key}={text}: is this one list or several values? Write {one} for one list, "
                "{key}={several} for {runs} runs",
                key=key,
                text=text,
                one=one,
                several=several,
                runs=len(pieces),
            )
        )
    values = []
    for piece in pieces:
        value = piece
        if key in LISTS and piece.startswith("[") and piece.endswith("]"):
            value = piece[1:-1]
        values.append(value.strip())
    return [value for value in dict.fromkeys(values) if value]


def plan_runs(path: Path, grid: Grid, out: Path) -> list[TrainingRun]:
    """Combine each point of the grid with its recipe, whose output_dir is a new folder in `out`."""
    fixed = [f"{key}={value}" for key, value in [*grid.fixed.items(), *grid.secrets.items()]]
    runs = []
    for name, values in zip(run_names(grid.axes), itertools.product(*grid.axes.values()), strict=True):
        point = dict(zip(grid.axes, values, strict=True))
        varied = [f"{key}={value}" for key, value in point.items()]
        runs.append((point, read_recipe(path, [*fixed, *varied, f"output_dir={out / name}"])))
    return runs


def run_names(axes: dict[str, list[str]]) -> list[str]:
    """Folder names of the runs, all different: `lora_rank-4_lora_alpha-8`. A path counts by its last part.

    A name that would be too long for a file system ends in a hash of the whole name.
    """
    by_axis = []
    for key, values in axes.items():
        names: list[str] = []
        for value in values:
            name = re.sub(r"[^\w.+-]+", "-", Path(value).name)[-40:]
            names.append(_distinct(f"{key}-{name}", names))
        by_axis.append(names)
    folder_names: list[str] = []
    for point in itertools.product(*by_axis):
        name = "_".join(point)
        encoded = name.encode()
        if len(encoded) > LONGEST_NAME:
            digest = hashlib.sha256(encoded).hexdigest()[:8]
            beginning = encoded[: LONGEST_NAME - 9].decode(errors="ignore")  # without half a character
            name = f"{beginning}-{digest}"
        folder_names.append(_distinct(name, folder_names))
    return folder_names


def _distinct(name: str, taken: Collection[str]) -> str:
    """The name itself, or if it is taken, the first free one of NAME-2, NAME-3 and so on."""
    number = 1
    distinct = name
    while distinct in taken:
        number += 1
        distinct = f"{name}-{number}"
    return distinct
