"""How many rows of a dataset a recipe trains: counted by LLaMA-Factory's own mixing and splitting."""

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tuneyard.compiler.problems import Problems
from tuneyard.compiler.read import read
from tuneyard.compiler.spec.file import Source
from tuneyard.compiler.verify.selection import split_rows
from tuneyard.core.datasets import REGISTRY, Dataset, loaded_files, locate_dataset, read_registry
from tuneyard.core.documents import read_yaml
from tuneyard.core.errors import Problem, TuneyardError, show_value
from tuneyard.core.records.answers import PAIRED
from tuneyard.core.training.llamafactory import expected_errors, quiet, read_arguments
from tuneyard.core.training.trained_rows import drawn_rows, mixed_and_split
from tuneyard.core.training.training_run import names_in
from tuneyard.core.training.training_stage import stage_of_rows

COUNTING = (
    "dataset", "eval_dataset", "max_samples", "mix_strategy", "interleave_probs", "val_size", "seed",
    "streaming", "buffer_size", "max_steps",
)  # fmt: skip
"""Keys of a recipe that decide how many rows of each dataset are trained."""
LLAMAFACTORY_DATASET_DIR = "data"


@dataclass(frozen=True, slots=True)
class RecipeFile:
    """A recipe's path, its settings and the line of each key."""

    path: Path
    settings: Mapping[str, object]
    lines: Mapping[str, int]

    def place(self, key: str) -> str:
        """`file:line` of a key, or the file if the recipe does not have it."""
        return f"{self.path}:{self.lines[key]}" if key in self.lines else str(self.path)

    def problem(self, key: str, message: str, hint: str = "") -> Problem:
        """E433, with the line of the key."""
        return Problem("E433", self.place(key), message, key, hint)


@dataclass(slots=True)
class Training:
    """The `rows` of a dataset that a recipe trains (None: not counted). `steps` name the losses."""

    rows: int | None = None
    steps: list[str] = field(default_factory=list)
    problem: Problem | None = None
    not_counted: str = ""


def read_recipe_file(path: Path, settings: Mapping[str, object]) -> RecipeFile:
    """A recipe with its `settings` (options of the command replace some) and its lines."""
    return RecipeFile(path, settings, read_yaml(path, "recipe").lines)


def training_of(
    recipe: RecipeFile,
    dataset: Dataset,
    folder: Path,
    loaded: int,
    dropped: Sequence[int] = (),
    siblings: Sequence[str] = (),
) -> Training:
    """Count the rows of a dataset that a recipe trains.

    `folder` is that of its registry, `loaded` the rows that LLaMA-Factory reads of it before `num_samples`,
    `dropped` the numbers of those without an answer, which its processor skips.
    `siblings` are the datasets of the same compile: if the recipe trains one of them, this one may be left
    out. The problem is E433 if the recipe does not train this dataset, E434 if LLaMA-Factory stops at another
    one.
    """
    if recipe.settings.get("do_train") is not True:
        return _nothing_trained(recipe)
    if not names_in(recipe.settings.get("dataset")):
        return Training(not_counted=f"{recipe.path} names no dataset")
    problem = _reads_something_else(recipe, dataset, folder)
    if problem:
        return Training(problem=problem)
    names = list(dict.fromkeys(names_in(recipe.settings.get("dataset"))))
    if dataset.name not in names:
        return _left_out(recipe, dataset, names, siblings)
    problem = _stops_at_another(recipe, dataset, folder)
    if problem:
        return Training(rows=0, steps=["LLaMA-Factory stops before the training, E434"], problem=problem)
    try:
        training = _count(recipe, dataset, folder, loaded, dropped, names)
    except TuneyardError as error:
        return Training(not_counted=str(error))
    except expected_errors() as error:
        return Training(
            problem=recipe.problem("dataset", f"LLaMA-Factory stops before the training: {error}")
        )
    if training.rows == 0:
        why = "; ".join(training.steps)
        training.problem = recipe.problem("dataset", f"no row of {dataset.name} is trained: {why}")
    return training


def _nothing_trained(recipe: RecipeFile) -> Training:
    """Count no trained rows, with E433 if the recipe does not use the dataset in any other way."""
    value = recipe.settings.get("do_train")
    state = "is missing" if value is None else f"is {show_value(value)}"
    training = Training(rows=0, steps=[f"do_train {state}: nothing is trained"])
    uses = [key for key in ("do_eval", "do_predict") if recipe.settings.get(key) is True]
    if not uses and not recipe.settings.get("tokenized_path"):
        training.problem = recipe.problem(
            "do_train", f"{state}: nothing is trained", "write `do_train: true`"
        )
    return training


def _stops_at_another(recipe: RecipeFile, dataset: Dataset, folder: Path) -> Problem | None:
    """E434 if LLaMA-Factory stops at another dataset of the recipe.

    It loads all of them before the training, and takes preference pairs only in stages rm and dpo, where it
    takes nothing else.
    """
    stage = str(recipe.settings.get("stage", "sft"))
    entries = read_registry(folder)
    for key in ("dataset", "eval_dataset"):
        for name in names_in(recipe.settings.get(key)):
            if name == dataset.name or name not in entries:
                continue
            has_pairs = stage_of_rows(entries[name]) == "rm"
            if has_pairs == (stage in PAIRED):
                continue
            content = "preference pairs (`ranking: true`)" if has_pairs else "no preference pairs"
            message = (
                f"{name} holds {content}, at which stage {stage} stops: no row of {dataset.name} is trained"
            )
            hint = "train preference pairs and other datasets by recipes of their own"
            return Problem("E434", recipe.place(key), message, key, hint)
    return None


def _reads_something_else(recipe: RecipeFile, dataset: Dataset, folder: Path) -> Problem | None:
    """E433 if `tokenized_path` or `dataset_dir` makes LLaMA-Factory read other data."""
    tokenized = recipe.settings.get("tokenized_path")
    if isinstance(tokenized, str) and Path(tokenized).is_dir() and any(Path(tokenized).iterdir()):
        message = f"{tokenized} holds a tokenized dataset: LLaMA-Factory trains that and ignores `dataset`"
        return recipe.problem("tokenized_path", message, "take the key out, or name a folder that is empty")
    dataset_dir = recipe.settings.get("dataset_dir")
    other = Path(str(dataset_dir or LLAMAFACTORY_DATASET_DIR))
    if other.resolve() == folder.resolve() or _same_entry(dataset, other):
        return None
    setting = "is missing"
    if dataset_dir:
        setting = show_value(dataset_dir)
    other_registry = str(other / REGISTRY)
    if not (other / REGISTRY).is_file():
        other_registry = f"{other_registry}, which does not exist"
    message = f"{setting}: LLaMA-Factory reads {other_registry}, and not {folder / REGISTRY}"
    return recipe.problem("dataset_dir", message, f"write `dataset_dir: {folder}`")


def _same_entry(dataset: Dataset, folder: Path) -> bool:
    """True if another registry names the same file with the same settings."""
    try:
        entry = read_registry(folder).get(dataset.name)
    except TuneyardError:
        return False
    if entry is None or not isinstance(entry.get("file_name"), str):
        return False
    same_file = (folder / str(entry["file_name"])).resolve() == dataset.path.resolve()
    return same_file and entry | {"file_name": ""} == dataset.entry | {"file_name": ""}


def _left_out(
    recipe: RecipeFile, dataset: Dataset, names: Sequence[str], siblings: Sequence[str]
) -> Training:
    trained = f"the recipe trains {', '.join(names)}"
    if dataset.name in names_in(recipe.settings.get("eval_dataset")):
        return Training(rows=0, steps=[f"{trained}, and evaluates on {dataset.name}"])
    if any(name in siblings for name in names):
        return Training(rows=0, steps=[trained])
    return Training(problem=recipe.problem("dataset", f"{trained}, not {dataset.name}"))


def _count(
    recipe: RecipeFile,
    dataset: Dataset,
    folder: Path,
    loaded: int,
    dropped: Sequence[int],
    names: Sequence[str],
) -> Training:
    """Mix and split datasets of row numbers with LLaMA-Factory's functions, and count those of this one."""
    import numpy as np
    from datasets import Dataset as Rows

    settings = {key: _as_number(recipe.settings[key]) for key in COUNTING if key in recipe.settings}
    settings |= {"model_name_or_path": "none", "dataset_dir": str(folder), "do_train": True}
    with quiet():
        arguments = read_arguments(settings)
    data_args, seed = arguments.data_args, arguments.training_args.seed
    if data_args.streaming:
        return Training(not_counted="streaming: max_steps decides")
    training = Training()
    sizes: dict[str, int] = {}
    for name in names:
        if name == dataset.name:
            sizes[name] = drawn_rows(dataset.entry, loaded, data_args.max_samples)
            training.steps += _draws(dataset.entry, loaded, data_args.max_samples)
        elif data_args.val_size > 0 or data_args.mix_strategy != "concat":
            other = locate_dataset(name, folder)
            sizes[name] = drawn_rows(other.entry, _rows_in(other), data_args.max_samples)
    first = sum(sizes[name] for name in names[: names.index(dataset.name)] if name in sizes)
    ends = np.cumsum(list(sizes.values()))
    numbers = [
        Rows.from_dict({"row": np.arange(end - size, end)})
        for end, size in zip(ends, sizes.values(), strict=True)
    ]
    with quiet():
        epoch = mixed_and_split(numbers, data_args, seed)

    def rows_of(rows: Any) -> Any:
        every = np.asarray(rows["row"])
        return every[(every >= first) & (every < first + sizes[dataset.name])]

    mixed, trained = rows_of(epoch.mixed), rows_of(epoch.trained)
    different = len(np.unique(mixed))
    if len(mixed) != sizes[dataset.name] or different < len(mixed):
        repeated = f" ({different} different ones)" if different < len(mixed) else ""
        training.steps.append(f"mix_strategy {data_args.mix_strategy} takes {len(mixed)}{repeated}")
    if len(trained) != len(mixed):
        training.steps.append(f"val_size {data_args.val_size:g} holds out {len(mixed) - len(trained)}")
    if dropped and "num_samples" in dataset.entry:
        training.steps.append(f"some may be among the {len(dropped)} rows that LLaMA-Factory drops, E406")
    elif dropped:
        answered = ~np.isin(trained, first + np.asarray(dropped))
        if not answered.all():
            training.steps.append(f"LLaMA-Factory drops {int((~answered).sum())} without an answer, E406")
        trained = trained[answered]
    training.rows = len(trained)
    return training


def _draws(entry: Mapping[str, object], rows: int, most: int | None) -> Iterator[str]:
    """Name the keys that leave rows out, or take some again."""
    samples = entry.get("num_samples")
    if isinstance(samples, int):
        again = ", some again" if samples > rows else ""
        yield f"num_samples draws {samples}{again}"
    if most is not None and most < drawn_rows(entry, rows, None):
        yield f"max_samples takes the first {most}"


def _rows_in(dataset: Dataset) -> int:
    """Count the records of a dataset that its `split` selects."""
    problems, count = Problems(), 0
    for path in loaded_files(dataset.path):
        for rows in read(path, str(path), Source({}, {}, {}), problems):
            count += len(rows.lines)
    return sum(map(len, split_rows(dataset.entry.get("split", "train"), count)))


def _as_number(value: object) -> object:
    """Read text of YAML 1.1 (1e-1) as the number that LLaMA-Factory's reader makes of it."""
    if not isinstance(value, str):
        return value
    for number in (int, float):
        with contextlib.suppress(ValueError):
            return number(value)
    return value
