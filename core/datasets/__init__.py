"""The registry `dataset_info.json`, in which LLaMA-Factory, recipes and eval look datasets up."""

import contextlib
import itertools
import re
import shlex
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from tuneyard.core.datasets.column_meanings import CHOICES, meaning
from tuneyard.core.documents import BOM, json_items, json_lines
from tuneyard.core.errors import (
    ContentError,
    Problem,
    RequestError,
    nearest,
    show_value,
    wrong_value,
)
from tuneyard.core.errors.problem_codes import ProblemCode
from tuneyard.core.files import Fields, is_file, near_name, read_json, read_object, strings
from tuneyard.core.files.bounded_reading import open_regular, refuse_pipe
from tuneyard.core.language.han import HAN
from tuneyard.core.language.message import _, joined, relative
from tuneyard.core.language.messages import say
from tuneyard.core.records import ALPACA, BARE, EXTRAS, OPENAI, SHAREGPT, SHAREGPT_TAGS, Record

UNKNOWN_ENTRY_KEY = ProblemCode(
    "E401", _("an ignored key or value of the entry"), _("Write the key that the message suggests.")
)


REGISTRY = "dataset_info.json"
NAMES = 10  # most registered names in a message
REMOTE_SOURCES = ("hf_hub_url", "ms_hub_url", "om_hub_url", "script_url", "cloud_file_name")
"""Keys of an entry that name where its rows are, other than `file_name`."""
FORMATS = ("alpaca", "sharegpt")
OPENAI_HINT = _("LLaMA-Factory's openai adds words of its own to each system text: use sharegpt with tags")
OPENAI_CALLS_HINT = _(
    "LLaMA-Factory's openai adds words of its own to each system text, and no other formatting reads "
    "tool_calls: compile the file (tuneyard data init FILE), which writes them as turns"
)
KEYS = {
    "file_name", "formatting", "columns", "tags", "ranking", "subset", "split", "folder", "num_samples",
    *REMOTE_SOURCES,
}  # fmt: skip
INPUT_NAMES = (
    "input", "inputs", "query", "question", "context", "contexts", "passage", "document", "article",
    "paragraph", "background",
)  # fmt: skip
"""Names of columns with a text that a prompt goes with: LLaMA-Factory's slot for it is `query`."""
RUNNING_WORDS = 5
RUNNING_IDEOGRAPHS = 10
# A table has the texts in place of the other values.
_BLANK: tuple[object, ...] = ("", None, "[]", "{}", "null", [], {})
CHOOSING = ("eval", "validation", "val", "dev")
"""Ends of the names of held-out splits that may choose a checkpoint."""
HELD_OUT = (*CHOOSING, "test")
"""Ends of the names of held-out splits. Those that choose come before `test`, which reports."""
REPORTING = ("test", *CHOOSING)
"""The same ends for a score that is reported: `test`, and those that choose only if there is none."""
TRAIN_SPLIT = "train"
SEPARATORS = ("_", "-")
"""What separates the name of a dataset from its split."""
DEFAULT_FOLDER = Path("dataset_info")
LLAMAFACTORY_FOLDER = Path("data")


class Dataset(NamedTuple):
    """One entry of the registry: its name, its file or folder, and the entry itself."""

    name: str
    path: Path
    entry: Fields


def registry_folder(option: Path | None = None, name: str = "") -> Path:
    """Choose the folder of the registry: that of the option, dataset_info/, or data/ if only that has `name`.

    stderr reports when data/ is used. `RequestError` if the folder of the option does not exist.
    """
    if option is not None:
        path = option / REGISTRY
        if not path.exists():
            near = near_name(path if option.exists() else option)
            raise RequestError(
                _(
                    "{path}: no {registry}; `tuneyard data compile` makes one; {near_name}",
                    path=option,
                    registry=REGISTRY,
                    near_name=near,
                )
            )
        return option
    default_registry = DEFAULT_FOLDER / REGISTRY
    other_registry = LLAMAFACTORY_FOLDER / REGISTRY
    why = ""
    if not default_registry.exists() and other_registry.is_file():
        why = _("no {path} here", path=default_registry)
    elif name and not (DEFAULT_FOLDER / name).exists() and other_folder(name, DEFAULT_FOLDER):
        why = _("{name} is not in {path}", name=name, path=default_registry)
    if not why:
        return DEFAULT_FOLDER
    say(_("{reason}: reading {path}", reason=why, path=other_registry), to_stderr=True)
    return LLAMAFACTORY_FOLDER


def other_folder(name: str, folder: Path) -> Path | None:
    """Look a name up in the other one of dataset_info/ and data/; None if `folder` has it or neither does."""
    other = LLAMAFACTORY_FOLDER
    if folder.resolve() == LLAMAFACTORY_FOLDER.resolve():
        other = DEFAULT_FOLDER
    with contextlib.suppress(ContentError):  # a broken registry registers nothing
        if name in read_registry(other) and name not in read_registry(folder):
            return other
    return None


def read_registry(folder: Path) -> dict[str, Fields]:
    """Read all entries by name, {} without a registry. `ContentError` if it is broken."""
    path = folder / REGISTRY
    try:
        path.stat()  # unlike `exists`, it raises for a loop of links
    except FileNotFoundError:
        if path.is_symlink():  # a compile would make the file that it leads to, wherever that is
            raise RequestError(_("{path}: {near_name}", path=path, near_name=near_name(path))) from None
        return {}
    except NotADirectoryError:
        raise RequestError(near_name(path)) from None
    entries: dict[str, Fields] = {}
    for name, entry in read_object(path, unique_keys=True).items():
        if not isinstance(entry, dict):
            place = _("{path}: entry {name!r}", path=path, name=name)
            raise wrong_value(place, entry, _("an object"))
        entries[name] = entry
    return entries


def wrong_folder(folder: Path) -> str:
    """Message for a current folder without dataset_info/ and data/, "" if it has one of them.

    It is "" as well if an option names another `folder`.
    """
    usual = (DEFAULT_FOLDER, LLAMAFACTORY_FOLDER)
    if folder not in usual or any(map(Path.is_dir, usual)):
        return ""
    return _(
        "there is no {folder}/ or {other}/ here: cd to your LLaMA-Factory folder, compile a dataset here "
        "(tuneyard data compile), or name its folder (--dataset-dir; dataset_dir in a recipe)",
        folder=DEFAULT_FOLDER,
        other=LLAMAFACTORY_FOLDER,
    )


class NotRegisteredError(RequestError):
    """The registry has no dataset of this name."""


def not_registered(
    name: str, folder: Path, entries: Iterable[str], offered: Iterable[str] | None = None
) -> NotRegisteredError:
    """Error for a name that is not registered in `folder`. Suggestions come from `offered` (default: all)."""
    if is_file(Path(name)):
        command = "compile" if Path(name).suffix in (".yaml", ".yml") else "init"
        fix = f"tuneyard data {command} {shlex.quote(name)}"
        return NotRegisteredError(
            _(
                "{path} is a file, expected the name of a dataset; make one of it: {command}",
                path=name,
                command=fix,
            )
        )
    names = sorted(entries)
    registered: str = _("none")
    if names:
        registered = joined(names[:NAMES])
    if len(names) > NAMES:
        registered = _("{names}, … and {number} more", names=registered, number=len(names) - NAMES)
    command = "tuneyard data list"
    if folder != DEFAULT_FOLDER:
        command += f" --dataset-dir {shlex.quote(relative(folder))}"
    otherwise = wrong_folder(folder) or _(
        "`{command}` shows what there is; --dataset-dir (in a recipe dataset_dir) names another folder",
        command=command,
    )
    hint = nearest(name, names if offered is None else offered, otherwise)
    if " " in name:
        hint = _("separate the names of datasets by commas")
    other = other_folder(name, folder)
    if other:
        hint = _(
            "it is in {path}: in a recipe `dataset_dir: {folder}`, else --dataset-dir {folder}",
            path=other / REGISTRY,
            folder=other,
        )
    return NotRegisteredError(
        _(
            "dataset {name!r} is not in {path} (registered: {names}); {hint}",
            name=name,
            path=folder / REGISTRY,
            names=registered,
            hint=hint,
        )
    )


def file_not_found(name: str, path: Path, folder: Path) -> RequestError:
    """Error for a registered dataset without its file; an entry may be compiled or written by hand."""
    return RequestError(
        _(
            "{path}: file of dataset {name!r} not found; compile it again, or correct `file_name` in "
            "{registry}; {near_name}",
            path=path,
            name=name,
            registry=folder / REGISTRY,
            near_name=near_name(path),
        )
    )


def unknown_keys(place: str, entry: Record, *, has_calls: bool = False) -> Iterator[Problem]:
    """Report the keys and the `formatting` of an entry that LLaMA-Factory does not know (E401).

    `has_calls`: the messages of its records have `tool_calls`.
    """
    for name, keys in (("", KEYS), ("columns", {*ALPACA, *SHAREGPT, *EXTRAS}), ("tags", {*SHAREGPT_TAGS})):
        value = entry.get(name) if name else entry
        if value is not None and not isinstance(value, Mapping):
            message = _("found {value}, expected an object", value=show_value(value))
            yield Problem(UNKNOWN_ENTRY_KEY, place, message, name)
            continue
        for key in value or ():
            if key not in keys:
                message = _("LLaMA-Factory does not know this key and ignores it")
                yield Problem(
                    UNKNOWN_ENTRY_KEY, place, message, f"{name}.{key}".lstrip("."), nearest(key, keys)
                )
    for key in ("ranking", "num_samples"):
        if isinstance(entry.get(key), str):
            message = _("found {value}, a text", value=show_value(entry[key]))
            yield Problem(UNKNOWN_ENTRY_KEY, place, message, key, _("write it without quotes"))
    columns = strings(entry.get("columns"))
    if "query" in columns and columns["query"] == columns.get("prompt"):
        message = _("found the column of the prompt, which would have its text twice")
        yield Problem(UNKNOWN_ENTRY_KEY, place, message, "columns.query", _("take it out of `columns`"))
    formatting = str(entry.get("formatting", FORMATS[0]))
    if formatting not in FORMATS:
        message = _(
            "found {value}, expected one of {names}", value=show_value(formatting), names=joined(FORMATS)
        )
        hint = nearest(formatting, FORMATS)
        if formatting == OPENAI:
            hint = OPENAI_CALLS_HINT if has_calls else OPENAI_HINT
        yield Problem(UNKNOWN_ENTRY_KEY, place, message, "formatting", hint)


def refuse_misspelt(name: str, folder: Path, entry: Record) -> None:
    """Raise `ContentError` for the first mistake in an entry whose fix is known."""
    for problem in unknown_keys(f"{relative(folder / REGISTRY)}: {name}", entry):
        if problem.hint not in ("", OPENAI_HINT):
            raise ContentError(problem.line())


def find_dataset(name: str, folder: Path, *, lenient: bool = False) -> Dataset:
    """Find a registered dataset of records; `RequestError` for a folder, or a missing one.

    An entry with a misspelt key is refused, unless `lenient`. One that also names a hub is always refused:
    LLaMA-Factory trains the rows of the hub, and figures of the file would be of other rows.
    """
    entries = read_registry(folder)
    if name not in entries:
        raise not_registered(name, folder, entries)
    file_name = entries[name].get("file_name")
    source = next((source for source in REMOTE_SOURCES if source in entries[name]), "")
    if source and file_name is not None:
        raise ContentError(
            _(
                "{path}: {name}: found {source} {value} next to file_name: LLaMA-Factory takes the rows from "
                "it, and never reads {file_name}; take {source} out of the entry to train the file",
                path=folder / REGISTRY,
                name=name,
                source=source,
                value=show_value(entries[name][source]),
                file_name=file_name,
            )
        )
    if not lenient or file_name is None:
        refuse_misspelt(name, folder, entries[name])
    if not isinstance(file_name, str):
        raise ContentError(
            _(
                "{path}: {name}: no file_name: only local files can be read here: download it, and register "
                "the file",
                path=folder / REGISTRY,
                name=name,
            )
        )
    path = folder / file_name
    if not path.exists():
        raise file_not_found(name, path, folder)
    refuse_pipe(path)
    if not path.is_file():
        raise RequestError(
            _(
                "{path}: dataset {name!r} is a folder, of which LLaMA-Factory loads every file; only recipes "
                "read a folder: register each file as a dataset of its own",
                path=path,
                name=name,
            )
        )
    return Dataset(name, path, entries[name])


def stem_of(name: str) -> str:
    """Name of a dataset without the split at its end: demo_rte_train → demo_rte."""
    for separator in SEPARATORS:
        name = name.removesuffix(f"{separator}{TRAIN_SPLIT}")
    return name


def eval_split(name: str, registered: Collection[str], splits: Sequence[str] = HELD_OUT) -> str:
    """Name of the held-out rows, of these splits, that are registered for a training dataset; "" if none."""
    for split, separator in itertools.product(splits, SEPARATORS):
        candidate = f"{stem_of(name)}{separator}{split}"
        if candidate in registered and candidate != name:
            return candidate
    return ""


def reporting_splits(
    names: Iterable[str], evaluated: Iterable[str], registered: Collection[str]
) -> list[str]:
    """Names of the rows to report on after a training on the datasets `names`: `test` of each.

    The rows that were `evaluated` meanwhile chose the checkpoint. They are only for datasets without `test`,
    and so are the other held-out splits.
    """
    tests = {name: eval_split(name, registered, REPORTING[:1]) for name in names}
    reporting = [name for name in evaluated if not tests.get(train_split_of(name, registered))]
    reporting += [test or eval_split(name, registered) for name, test in tests.items()]
    return list(dict.fromkeys(filter(None, reporting)))


def is_named_held_out(name: str) -> bool:
    """True for a name with a held-out split at its end: qa_eval, qa-test."""
    for split, separator in itertools.product(HELD_OUT, SEPARATORS):
        if name.endswith(f"{separator}{split}"):
            return True
    return False


def train_split_of(name: str, registered: Collection[str]) -> str:
    """Name of the training dataset whose held-out rows `name` are, "" if it names none that is registered."""
    for split, separator in itertools.product(HELD_OUT, SEPARATORS):
        stem = name.removesuffix(f"{separator}{split}")
        if stem == name:
            continue
        for candidate in (f"{stem}{separator}{TRAIN_SPLIT}", stem):
            if candidate in registered:
                return candidate
    return ""


def read_records(path: Path) -> list[Fields]:
    """Read the records of a JSON array or a JSON Lines file. The content decides, not the file name."""
    with open_regular(path) as file:
        begin = file.read(1 << 16).removeprefix(BOM).lstrip()
    if begin.startswith(b"{\n"):  # no JSON Lines
        document = read_json(path)
        raise wrong_value(
            path, document, _("a list of records, or one in each line (`tuneyard data init` reads more)")
        )
    if not begin.startswith(b"["):
        return [record for _unused, record in json_lines(path)]
    rows = []
    for number, row in enumerate(json_items(path), 1):
        if not isinstance(row, dict):
            raise wrong_value(_("{path}: record {number}", path=path, number=number), row, _("an object"))
        rows.append(row)
    return rows


def left_out_texts(record: Record, columns: Mapping[str, str], formatting: object = "alpaca") -> list[str]:
    """Columns with a text that LLaMA-Factory leaves out of a record's prompt because `query` maps nothing.

    `columns` are those of the entry, which has some. A column counts if the entry maps nothing to it and the
    prompt does not contain its text. A column with another name than an input's (`is_input`) must
    contain running text. Texts of the answer and copies of the whole example do not count.
    """
    if formatting != "alpaca" or not columns or "query" in columns:
        return []
    mapped = set(columns.values())
    prompt = _text_of(record, columns.get("prompt", ""))
    answers = [
        _text_of(record, columns.get(registry_key, "")) for registry_key in ("response", "chosen", "rejected")
    ]
    left_out = []
    for name in record:
        text = _text_of(record, name)
        if name in mapped or name in BARE or not text or text in prompt:
            continue
        if is_input(name):
            left_out.append(name)
            continue
        if meaning(name) not in ("", CHOICES):  # core/datasets/unread_keys.py reports it
            continue
        repeats_answer = any(text in answer for answer in answers)
        is_whole_example = (
            bool(prompt) and prompt in text and any(answer and answer in text for answer in answers)
        )
        # More than an id, a label, an address or a few words.
        is_running_text = (
            len(text.split()) >= RUNNING_WORDS or len(re.findall(f"[{HAN}]", text)) >= RUNNING_IDEOGRAPHS
        )
        if is_running_text and not repeats_answer and not is_whole_example:
            left_out.append(name)
    return left_out


def is_input(name: str) -> bool:
    """True if a column is called like the input that a prompt goes with."""
    return name.lower() in INPUT_NAMES


def query_fix(columns: Sequence[str]) -> str:
    """How columns that LLaMA-Factory leaves out get into the prompt: its `query` takes one of them."""
    entries = joined((f'"query": "{column}"' for column in columns), _(" or "))
    fix = _("add {entries} to the entry's `columns`", entries=entries)
    if len(columns) == 1:
        return fix
    return _(
        "{fix}; only one can be `query`: if the prompt needs more, compile them into it (data init)", fix=fix
    )


def _text_of(record: Record, name: str) -> str:
    value = record.get(name)
    return value.strip() if isinstance(value, str) else ""


def filled(values: Sequence[object]) -> list[int]:
    """Positions of the values that are not null and no empty text, list or object."""
    return [number for number, value in enumerate(values) if value not in _BLANK]
