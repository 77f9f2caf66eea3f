"""Datasets and model of a recipe: their places, the numbers of rows, and changes since the compile."""

import hashlib
import json
import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from tuneyard.core.datasets import (
    CHOOSING,
    FORMATS,
    HELD_OUT,
    REGISTRY,
    REMOTE_SOURCES,
    Dataset,
    NotRegisteredError,
    eval_split,
    file_not_found,
    filled,
    is_input,
    left_out_texts,
    not_registered,
    other_folder,
    query_fix,
    read_records,
    read_registry,
    refuse_misspelt,
)
from tuneyard.core.datasets.compiled import manifest_beside
from tuneyard.core.datasets.split import rows_of_split, split_problem
from tuneyard.core.datasets.unread_keys import UnreadKeys
from tuneyard.core.documents import read_mapping
from tuneyard.core.errors import ContentError, Problem, TuneyardError
from tuneyard.core.errors.problem_codes import ProblemCode
from tuneyard.core.files import sha256, strings
from tuneyard.core.files.bounded_reading import UnboundedError, refuse_pipe
from tuneyard.core.installation.checkout import ROOT
from tuneyard.core.language.message import _, joined, marked
from tuneyard.core.llamafactory.stages import TAGGED, rows_of, stage_fits, stage_problem
from tuneyard.core.records import BARE, OPENAI, format_of_entry
from tuneyard.recipes.recipe import MissingDataProblem, Recipe, UnboundedDataProblem

COUNTED = {".json", ".jsonl"}  # kinds of files that we read as well
NEVER_EVALUATED = ProblemCode(
    "W307",
    _("held-out rows that are never evaluated"),
    _("Set `eval_strategy`, or leave `val_size` out."),
)
UNKNOWN_DATASET = ProblemCode(
    "E320",
    _("a dataset that is not registered or cannot be read"),
    _("`tuneyard data list` shows the registered ones."),
)
EMPTY_DATASET = ProblemCode(
    "E321", _("a dataset without records"), _("Compile it again, or name another one.")
)
STALE_DATASET = ProblemCode("W322", _("a dataset that changed since its compile"), _("Compile it again."))
UNNAMED_COLUMNS = ProblemCode(
    "W324",
    _("records with columns that the entry does not name"),
    _("Map them under `columns` in dataset_info.json."),
)
UNNAMED_PROMPT = ProblemCode(
    "E327",
    _("system texts or inputs that the entry does not name"),
    _("Map the column under `columns` in dataset_info.json."),
)
UNNAMED_TEXT = ProblemCode(
    "W327", _("a text that the entry does not name"), _("If the prompt needs it, map it to `query`.")
)
BEST_BY_TRAINING_ROWS = ProblemCode(
    "E328",
    _("the best checkpoint is chosen on training rows"),
    _("Name another `eval_dataset`, or hold rows out by `val_size`."),
)
EVALUATED_ON_TRAINING_ROWS = ProblemCode(
    "W328", _("evaluation rows that are trained on"), _("Name another `eval_dataset`.")
)
UNMIXED_STREAMS = ProblemCode(
    "W329", _("streaming does not mix the datasets"), _("Write `mix_strategy: interleave_under`.")
)
ROWS_LEFT_OUT = ProblemCode(
    "N329",
    _("`max_samples` or `interleave_under` leaves rows out"),
    _("Leave `max_samples` out, or write `mix_strategy: concat`."),
)


BUFFER_SIZE = 16384
"""LLaMA-Factory's default of buffer_size, rows that streaming shuffles."""
PT_HINT = _("stage: sft learns the answers; for pt, put the whole text into the prompt column")
SYSTEM = "system"
"""The part that belongs to the prompt as its question does: training without it is an error."""


@dataclass(frozen=True, slots=True)
class NamedDataset:
    """A dataset of a recipe. `rows` is None if not counted, `elsewhere` is its source if it is not local."""

    key: str
    name: str
    rows: int | None
    elsewhere: str = ""


def read_datasets(recipe: Recipe) -> tuple[list[NamedDataset], list[Problem]]:
    """Read the datasets of a recipe that can be trained on, and the problems of all of them."""
    datasets, problems = [], []
    folder = Path(dataset_dir(recipe))
    for key in ("dataset", "eval_dataset"):
        for name in dict.fromkeys(recipe.names(key)):
            try:
                dataset, dataset_problems = _read_dataset(recipe, key, name)
            except TuneyardError as error:
                hint = ""
                if isinstance(error, NotRegisteredError) and not other_folder(name, folder):
                    command = _compile_command(name)
                    if command:
                        hint = _("compile it: {command}", command=command)
                kind = UnboundedDataProblem if isinstance(error, UnboundedError) else MissingDataProblem
                problems.append(recipe.problem(UNKNOWN_DATASET, key, error.message, hint, kind))
            else:
                datasets.append(dataset)
                problems.extend(dataset_problems)
    problems.extend(evaluated_on_training_rows(recipe))
    problems.extend(_held_out_rows_left_out(recipe))
    problems.extend(_unmixed(recipe, datasets))
    problems.extend(_never_drawn(recipe, datasets))
    return datasets, problems


def _compile_command(name: str) -> str:
    """Command that compiles a dataset, "" if no bundled spec makes it."""
    stem = name.removeprefix("alpaca_").rsplit("_", 1)[0]
    specs = {path.stem.replace("-", "_"): path.stem for path in (ROOT / "compiler/specs").glob("*.yaml")}
    if stem not in specs:
        return ""
    command = f"tuneyard data compile {specs[stem]}"
    spec = read_mapping(ROOT / f"compiler/specs/{specs[stem]}.yaml", "spec")
    source = spec.get("source")
    names_files = "mix" in spec or (isinstance(source, dict) and {"files", "hub"} & source.keys())
    if not names_files and not Path("data/raw", specs[stem]).is_dir():
        command += " --source FILE"
    return command


def dataset_dir(recipe: Recipe) -> str:
    """Folder of a recipe's registry, or ONLINE or REMOTE:… if it is on a hub."""
    return str(recipe.settings.get("dataset_dir", "data"))


def locate(name: str, folder: str, key: str = "dataset") -> tuple[dict[str, object], Path | str]:
    """Find a dataset's entry, and its path or a text with its remote source. `RequestError` if missing."""
    if folder == "ONLINE" or folder.startswith("REMOTE:"):
        return {}, f"dataset_dir: {folder}"
    registry = Path(folder)
    entries = read_registry(registry)
    if name not in entries:  # a held-out dataset is no suggestion for training
        training_entries = [
            entry for entry in entries if key == "eval_dataset" or not entry.endswith(HELD_OUT)
        ]
        raise not_registered(name, registry, entries, training_entries)
    entry = entries[name]
    refuse_misspelt(name, registry, entry)
    for source in REMOTE_SOURCES:
        if source in entry:
            return entry, f"{source}: {entry[source]}"
    file_name = entry.get("file_name")
    if not isinstance(file_name, str):
        raise ContentError(
            _("{place}: {name}: names no file_name and no other source", place=registry / REGISTRY, name=name)
        )
    path = registry / file_name
    if not path.exists():
        raise file_not_found(name, path, registry)
    for file in sorted(path.iterdir()) if path.is_dir() else [path]:  # LLaMA-Factory loads all of a folder
        refuse_pipe(file)
    problem = split_problem(f"{registry / REGISTRY}: {name}", entry)
    if problem:
        raise ContentError(problem.line())
    return entry, path


def _read_dataset(recipe: Recipe, key: str, name: str) -> tuple[NamedDataset, list[Problem]]:
    entry, path = locate(name, dataset_dir(recipe), key)
    problems = []
    if not fits_stage(recipe, name, entry):
        problems.append(stage_problem(recipe.stage, name, entry, recipe.place("stage")))
    if isinstance(path, str):
        return NamedDataset(key, name, None, path), problems
    if path.is_dir():
        problems.extend(_files_of_other_types(recipe, key, path))
    if not _is_counted(path):
        return NamedDataset(key, name, None), problems
    records, sampled = read_records(path), entry.get("num_samples")
    rows = rows_of_split(entry, len(records))
    if not records:
        problems.append(recipe.problem(EMPTY_DATASET, key, _("{path}: has no records", path=path)))
    elif not rows:
        message = _(
            "{name}: `split` of its entry takes none of the {number} records",
            name=name,
            number=len(records),
        )
        problems.append(recipe.problem(EMPTY_DATASET, key, message, _("take it out")))
    columns = entry.get("columns")
    mapped = columns.values() if isinstance(columns, dict) else ()
    problems.extend(_unread_answers(recipe, key, name, entry, records))
    limit = recipe.number("max_samples", math.inf)
    if key == "dataset" and rows and limit < rows and not recipe.is_overridden("max_samples"):
        message = _(
            "trains on the first {limit} of {rows} rows of {name}", limit=int(limit), rows=rows, name=name
        )
        problems.append(recipe.problem(ROWS_LEFT_OUT, "max_samples", message))
    for part in BARE:
        if part in mapped or recipe.stage == "pt":
            continue
        count = len(filled([record.get(part) for record in records]))
        if count:
            is_dropped_system = part == SYSTEM and SYSTEM not in strings(columns)
            code = UNNAMED_PROMPT if is_dropped_system else UNNAMED_COLUMNS
            message = _(
                "{name}: {column!r} is filled in {count} of {records} records, and the entry does not "
                "name it",
                name=name,
                column=part,
                count=count,
                records=len(records),
            )
            hint = _(
                'LLaMA-Factory leaves it out; add "{column}": "{column}" to the entry\'s `columns`',
                column=part,
            )
            problems.append(recipe.problem(code, key, message, hint))
    problems.extend(_text_problems(recipe, key, name, entry, records))
    problems.extend(_unread_keys(recipe, key, Dataset(name, path, entry), records))
    compiled = manifest_beside(path)
    if compiled is not None and compiled[1].sha256 != sha256(path):
        hint = _("compile it again")
        command = _compile_command(name)
        if command:
            hint = _("compile it again: {command}", command=command)
        problems.append(
            recipe.problem(STALE_DATASET, key, _("{path}: changed since it was compiled", path=path), hint)
        )
    if isinstance(sampled, int):
        rows = sampled
    return NamedDataset(key, name, rows), problems


LOADED_TYPES = {"json": "json", "jsonl": "json", "txt": "text"}
LOADED_TYPES |= {kind: kind for kind in ("csv", "parquet", "arrow")}
"""The type as which LLaMA-Factory 0.9.5 loads files of a folder, by the end of their names."""
MOST_NAMED = 5  # files in a message


def _files_of_other_types(recipe: Recipe, key: str, folder: Path) -> list[Problem]:
    """The files of a folder that LLaMA-Factory cannot load with the first one: it loads all, or stops."""
    names = sorted(path.name for path in folder.iterdir())  # hidden ones, too
    types = {name: LOADED_TYPES.get(Path(name).suffix[1:]) for name in names}
    known_types = Counter(kind for kind in types.values() if kind)
    if not known_types:
        return []
    ((usual, _count),) = known_types.most_common(1)
    others = [name for name in names if types[name] != usual]
    if not others:
        return []
    files = others[:MOST_NAMED]
    if len(others) > MOST_NAMED:
        files.append("…")
    message = _(
        "{folder}: LLaMA-Factory loads every file of a folder as one type ({type}), not {files}",
        folder=folder,
        type=usual,
        files=joined(files),
    )
    return [recipe.problem(EMPTY_DATASET, key, message, _("move them out of the folder"))]


def fits_stage(recipe: Recipe, name: str, entry: Mapping[str, object]) -> bool:
    """Whether the recipe's stage can train a dataset, or only generates answers to its rows.

    An empty `entry` is that of a dataset on a hub, whose rows are unknown.
    """
    if not entry:
        return True
    generates = recipe.settings.get("predict_with_generate") is True and name not in recipe.names("dataset")
    if generates and rows_of(entry) == TAGGED:
        return True
    return stage_fits(recipe.stage, entry)


def _text_problems(
    recipe: Recipe, key: str, name: str, entry: dict[str, object], records: list[dict[str, object]]
) -> Iterator[Problem]:
    """Yield the columns with a text that LLaMA-Factory leaves out of the prompt.

    An input is an error (E327), any other running text a warning (W327).
    """
    if recipe.stage == "pt":
        return
    columns, formatting = strings(entry.get("columns")), entry.get("formatting", "alpaca")
    places: dict[str, list[int]] = {}
    for number, record in enumerate(records, 1):
        for column in left_out_texts(record, columns, formatting):
            places.setdefault(column, []).append(number)
    inputs = [column for column in places if is_input(column)]
    texts = [column for column in places if not is_input(column)]
    if inputs:
        unmapped = _unmapped(inputs, places, len(records))
        message = _(
            "{name}: {columns}: LLaMA-Factory trains the prompt without it", name=name, columns=unmapped
        )
        yield recipe.problem(UNNAMED_PROMPT, key, message, query_fix(inputs))
    if texts:
        unmapped = _unmapped(texts, places, len(records))
        message = _("{name}: {columns}: LLaMA-Factory leaves this text out", name=name, columns=unmapped)
        yield recipe.problem(
            UNNAMED_TEXT, key, message, _("if the prompt needs it, {hint}", hint=query_fix([*inputs, *texts]))
        )


def _unread_keys(
    recipe: Recipe, key: str, dataset: Dataset, records: list[dict[str, object]]
) -> Iterator[Problem]:
    """Yield the keys of records and turns that LLaMA-Factory does not read, as `data verify` does.

    E410 changes an answer, W409 may.
    """
    if recipe.stage == "pt" or dataset.entry.get("formatting", "alpaca") not in (*FORMATS, OPENAI):
        return
    mask_history = recipe.settings.get("mask_history") is True
    unread = UnreadKeys(dataset.path, format_of_entry(dataset.entry), mask_history=mask_history)
    for number, record in enumerate(records):
        unread.note(record, "", number)
    for problem in unread.problems(len(records)):
        message = _(
            "{name}, row {row}: {key}: {message}",
            name=dataset.name,
            row=problem.row + 1,
            key=problem.name,
            message=problem.message,
        )
        yield recipe.problem(problem.code, key, message, problem.fix)


def _unmapped(columns: Sequence[str], places: Mapping[str, list[int]], total: int) -> str:
    """Columns with the number of records that fill them in vain; `places` are row numbers by column."""
    shares = []
    for column in columns:
        rows = places[column]
        shares.append(
            _(
                "{column!r} is filled in {count} of {records} records (first in row {row})",
                column=column,
                count=len(rows),
                records=total,
                row=rows[0],
            )
        )
    return _("{shares}, and the entry does not map `query`", shares=joined(shares, _(" and ")))


def _unread_answers(
    recipe: Recipe, key: str, name: str, entry: Mapping[str, object], records: list[dict[str, object]]
) -> Iterator[Problem]:
    """Yield that stage pt reads the prompt column alone, and leaves out the answers."""
    if recipe.stage != "pt":
        return
    if entry.get("formatting", "alpaca") != "alpaca":
        message = _("{name}: stage pt reads the first turn of a conversation alone", name=name)
        yield recipe.problem(UNNAMED_PROMPT, key, message, PT_HINT)
        return
    columns = strings(entry.get("columns")) if "columns" in entry else {"response": "output"}
    answer = columns.get("response", "")
    count = len(filled([record.get(answer) for record in records]))
    if count:
        message = _(
            "{name}: {column!r} is filled in {count} of {records} records, and stage pt reads the prompt "
            "alone",
            name=name,
            column=answer,
            count=count,
            records=len(records),
        )
        yield recipe.problem(UNNAMED_PROMPT, key, message, PT_HINT)


def _unmixed(recipe: Recipe, datasets: Sequence[NamedDataset]) -> Iterator[Problem]:
    """Yield that streaming reads one dataset after the other, if they do not fit into its buffer."""
    rows = [dataset.rows for dataset in datasets if dataset.key == "dataset"]
    is_concatenated = recipe.settings.get("mix_strategy", "concat") == "concat"
    if not recipe.settings.get("streaming") or len(rows) < 2 or not is_concatenated:
        return
    buffer = recipe.number("buffer_size", BUFFER_SIZE)
    if None not in rows and sum(count or 0 for count in rows) <= buffer:
        return
    message = _("streaming trains one dataset after the other; only the rows in its buffer are mixed")
    yield recipe.problem(UNMIXED_STREAMS, "dataset", message, "mix_strategy: interleave_under")


def _never_drawn(recipe: Recipe, datasets: Sequence[NamedDataset]) -> Iterator[Problem]:
    """N329 for the rows that `interleave_under` leaves out: it ends with the first dataset that is used up.

    With `interleave_probs` it draws the datasets at random, so that the numbers are about these.
    """
    key, limit = "mix_strategy", recipe.number("max_samples", math.inf)
    counts = {
        dataset.name: min(dataset.rows, limit)
        for dataset in datasets
        if dataset.key == "dataset" and dataset.rows is not None
    }
    names = list(dict.fromkeys(recipe.names("dataset")))
    if recipe.settings.get(key) != "interleave_under" or len(names) < 2 or counts.keys() != set(names):
        return
    shares = [1.0] * len(names)
    template = marked(
        "interleave_under ends with the {rows} rows of {first}: {number} of {rows_of_name} rows of {name} "
        "are never trained"
    )
    if recipe.settings.get("interleave_probs"):
        shares = _draw_shares(recipe, len(names))
        template = marked(
            "interleave_under ends with the {rows} rows of {first}: about {number} of {rows_of_name} rows of "
            "{name} are never trained"
        )
    draws = [(counts[name] / share, name) for name, share in zip(names, shares, strict=False) if share]
    if not draws:  # E350 reports probabilities that cannot be used
        return
    end, first = min(draws)
    for name, share in zip(names, shares, strict=True):
        left_out = int(counts[name] - math.floor(end * share + 1e-9))
        if left_out > 0 and name != first:
            message = _(
                template,
                rows=int(counts[first]),
                first=first,
                number=left_out,
                rows_of_name=int(counts[name]),
                name=name,
            )
            yield recipe.problem(ROWS_LEFT_OUT, key, message, _("mix_strategy: concat trains every row once"))


def _draw_shares(recipe: Recipe, datasets: int) -> list[float]:
    """The probabilities of `interleave_probs`, [] if they are none for so many datasets."""
    shares = []
    for text in recipe.names("interleave_probs"):
        try:
            share = float(text)
        except ValueError:
            return []
        shares.append(share)
    is_usable = len(shares) == datasets and all(0 <= share <= 1 for share in shares)
    is_usable = is_usable and math.isclose(sum(shares), 1)
    return shares if is_usable else []


def evaluated_on_training_rows(recipe: Recipe) -> Iterator[Problem]:
    """Report datasets that are both trained and evaluated on: the same name, or the same file or source."""
    if not recipe.trains:
        return
    trained = {_source(recipe, name): name for name in recipe.names("dataset")}
    for name in recipe.names("eval_dataset"):
        twin = trained.get(_source(recipe, name))
        if twin is None:
            yield from _shared_rows(recipe, name)
            continue
        message = _(
            "{name} is the dataset that is trained on: its loss only shows how well they are memorised",
            name=name,
        )
        if twin != name:
            message = _(
                "{name} is the rows of {dataset}, the dataset that is trained on: its loss only shows how "
                "well they are memorised",
                name=name,
                dataset=twin,
            )
        hint = _("name a held-out dataset, or leave it out and hold out a share: val_size: 0.1")
        code = EVALUATED_ON_TRAINING_ROWS
        if recipe.settings.get("load_best_model_at_end") is True:
            message = _(
                "{message}, and load_best_model_at_end keeps the checkpoint that memorised most",
                message=message,
            )
            code = BEST_BY_TRAINING_ROWS
        yield recipe.problem(code, "eval_dataset", message, hint)


def _held_out_rows_left_out(recipe: Recipe) -> Iterator[Problem]:
    """Yield that a recipe holds out training rows, although its datasets have rows for that.

    `text_eval` stands beside `text` after a compile with a file of validation rows. Rows of `test` choose no
    checkpoint.
    """
    folder = dataset_dir(recipe)
    if not recipe.trains or not recipe.settings.get("val_size") or recipe.names("eval_dataset"):
        return
    try:
        entries = read_registry(Path(folder))
    except (TuneyardError, OSError):  # E320 reports it
        return
    names = []
    for dataset in recipe.names("dataset"):
        name = eval_split(dataset, entries, CHOOSING)
        if name and name not in recipe.names("dataset") and fits_stage(recipe, name, entries[name]):
            names.append(name)
    if names:
        listed = ",".join(dict.fromkeys(names))
        message = _(
            "holds out training rows, and the held-out rows of {names} are never evaluated", names=listed
        )
        yield recipe.problem(NEVER_EVALUATED, "val_size", message, f"eval_dataset={listed} val_size=0")


def _shared_rows(recipe: Recipe, name: str) -> Iterator[Problem]:
    """Yield that rows of an evaluation dataset are also trained on."""
    rows = _row_hashes(recipe, [name])
    shared = rows & _row_hashes(recipe, recipe.names("dataset"))
    if shared:
        message = _(
            "{number} of the {rows} different rows of {name} are also trained on",
            number=len(shared),
            rows=len(rows),
            name=name,
        )
        hint = _("take them out of one of the datasets: their loss only shows how well they are memorised")
        yield recipe.problem(EVALUATED_ON_TRAINING_ROWS, "eval_dataset", message, hint)


def _row_hashes(recipe: Recipe, names: Sequence[str]) -> set[bytes]:
    """Hashes of the different rows of datasets, of those whose files are here and can be read."""
    hashes: set[bytes] = set()
    for name in dict.fromkeys(names):
        try:
            _entry, path = locate(name, dataset_dir(recipe))
            records = read_records(path) if isinstance(path, Path) and _is_counted(path) else []
        except (TuneyardError, OSError):  # E320 reports it
            continue
        for record in records:
            text = json.dumps(record, sort_keys=True)
            hashes.add(hashlib.blake2b(text.encode(), digest_size=16).digest())
    return hashes


def _is_counted(path: Path) -> bool:
    """True for a JSON file: other kinds, and folders, are left to LLaMA-Factory."""
    return path.suffix in COUNTED and path.is_file()


def _source(recipe: Recipe, name: str) -> object:
    """Source of a dataset's rows, to compare datasets by it; the dataset's name if the source is unknown."""
    folder = dataset_dir(recipe)
    try:
        entry, path = locate(name, folder)
    except TuneyardError:
        return name
    if not entry:  # a dataset_dir on a hub
        return name
    part = [entry.get(key) for key in ("subset", "split", "folder")]
    return (path.resolve() if isinstance(path, Path) else path, str(part))
