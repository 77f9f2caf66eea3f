"""CMMLU: its subjects and their groups, its questions from a folder or the hub, and its prompt.

The benchmark (github.com/haonan-li/CMMLU, arXiv:2306.09212) keeps five example questions (dev) and some
170 test questions of each subject. The hub has them as Parquet, its own folder as dev/ and test/ of CSV.
"""

import csv
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tuneyard.core.documents import read_mapping
from tuneyard.core.errors import ContentError, RequestError, nearest, show_value
from tuneyard.core.files import from_hub
from tuneyard.core.prompt import Conversation
from tuneyard.eval.datasets.dataset import EvalDataset

HUB_ID = "haonan-li/cmmlu"
REVISION = "refs/convert/parquet"  # SUBJECT/SPLIT/0000.parquet: no dataset's own code is run
TABLE = Path(__file__).with_name("cmmlu.yaml")
LETTERS = ("A", "B", "C", "D")
COLUMNS = ("Question", *LETTERS, "Answer")
Encode = Callable[[str], list[int]]


@dataclass(frozen=True, slots=True)
class Subject:
    """One of the 67: the name of its files, the name in its prompt, and its one or two groups."""

    name: str
    chinese: str
    groups: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Exam:
    """A subject's test questions as a dataset, and the examples to be shown before each, with answers."""

    subject: Subject
    dataset: EvalDataset
    examples: list[str]


def read_subjects() -> dict[str, Subject]:
    """Return all subjects by name, sorted as the benchmark's files are; groups in the table's order."""
    table: dict[str, Any] = read_mapping(TABLE, "table of subjects")
    named = [group for group in table.values() if isinstance(group, dict)]
    chinese = {name: text for group in named for name, text in group.items()}
    return {
        name: Subject(name, chinese[name], tuple(group for group in table if name in table[group]))
        for name in sorted(chinese)
    }


def choose_subjects(text: str | None, data: Path | None) -> list[Subject]:
    """Return the subjects of `--subjects a,b`, else all of a folder or the hub; `RequestError` for none."""
    known = read_subjects()
    if text is None:
        there = [s for s in known.values() if data is None or _file(data, s.name, "test")]
        if not there:
            raise RequestError(f"{data}: no test/SUBJECT.csv of the benchmark's subjects")
        return there
    names = [name.strip() for name in text.split(",") if name.strip()]
    for name in names:
        if name not in known:
            hint = nearest(name, known) or f"one of {', '.join(known)}"
            raise RequestError(f"--subjects: CMMLU has no subject {name!r}: {hint}")
    if not names:
        raise RequestError("--subjects: found no name, expected e.g. anatomy,logical")
    return [known[name] for name in dict.fromkeys(names)]


def fetch(repo: str, names: Iterable[str]) -> Path:
    """Return the cached folder of the subjects' Parquet; `RequestError` if the hub cannot be reached."""
    wanted = [f"{name}/*/*.parquet" for name in names]
    fix = "give a folder with dev/ and test/, or name a mirror in HF_ENDPOINT"
    try:
        return from_hub(repo, fix, repo_type="dataset", revision=REVISION, allow_patterns=wanted)
    except RequestError as error:
        raise RequestError(f"--data {error}") from error


def read_exam(data: Path, subject: Subject, shots: int) -> Exam:
    """Read test questions and `shots` dev ones; `RequestError` for too few, `ContentError` if broken."""
    path, asked = _read(data, subject, "test")
    beside, shown = _read(data, subject, "dev") if shots else (path, [])
    if len(shown) < shots:
        raise RequestError(f"{beside}: {len(shown)} questions, too few for --shots {shots}")
    examples = [f"{one.messages[0]['content']}{one.answer}\n\n" for one in shown[:shots]]
    others = (beside,) if shots else ()
    return Exam(subject, EvalDataset(subject.name, path, [{} for _ in asked], asked, others), examples)


def in_groups(subjects: Sequence[Subject]) -> dict[str, list[str]]:
    """Return the names of the subjects by group, in the benchmark's order of groups."""
    table = read_mapping(TABLE, "table of subjects")
    groups = {group: [one.name for one in subjects if group in one.groups] for group in table}
    return {group: names for group, names in groups.items() if names}


def prompt(exam: Exam, row: int, encode: Encode, longest: int) -> tuple[list[int], int]:
    """Return a prompt's ids and number of shots: beyond `longest` ids the longest shots are left out."""
    head = f"以下是关于{exam.subject.chinese}的单项选择题，请直接给出正确答案的选项。\n\n"
    shown, question = list(exam.examples), exam.dataset.conversations[row].messages[0]["content"]
    ids = encode(head + "".join(shown) + question)
    while len(ids) > longest and shown:
        shown.remove(max(shown, key=lambda text: len(encode(text))))
        ids = encode(head + "".join(shown) + question)
    return ids, len(shown)


def _read(data: Path, subject: Subject, split: str) -> tuple[Path, list[Conversation]]:
    path = _file(data, subject.name, split)
    if path is None:
        raise RequestError(
            f"{data / split / subject.name}.csv: the subject's {split} questions are not there"
        )
    rows = _parquet_rows(path) if path.suffix == ".parquet" else _csv_rows(path)
    items = [_item(row, place) for place, row in rows]
    if not items:
        raise ContentError(f"{path}: no questions")
    return path, items


def _file(data: Path, name: str, split: str) -> Path | None:
    layouts = (data / split / f"{name}.csv", data / name / split / "0000.parquet")
    return next((path for path in layouts if path.is_file()), None)


def _csv_rows(path: Path) -> Iterator[tuple[str, Mapping[str, object]]]:
    with path.open(encoding="utf-8-sig", newline="") as file:
        reader = csv.DictReader(file, strict=True)
        try:
            for row in reader:
                yield f"{path}:{reader.line_num}", row
        except csv.Error as error:
            raise ContentError(f"{path}:{reader.reader.line_num}: not CSV: {error}") from error
        except UnicodeDecodeError as error:
            raise ContentError(f"{path}: not UTF-8 ({error.reason} near byte {error.start})") from error


def _parquet_rows(path: Path) -> Iterator[tuple[str, Mapping[str, object]]]:
    import pyarrow
    import pyarrow.parquet

    try:
        rows = pyarrow.parquet.read_table(path).to_pylist()
    except pyarrow.ArrowException as error:
        raise ContentError(f"{path}: not Parquet: {str(error).splitlines()[0]}") from error
    yield from ((f"{path}: row {number}", row) for number, row in enumerate(rows, 1))


def _item(row: Mapping[str, object], place: str) -> Conversation:
    """A question as the benchmark shows it, ending where its answer is to come."""
    for column in COLUMNS:
        if not isinstance(row.get(column), str):
            found = show_value(row.get(column))
            raise ContentError(f"{place}: {column}: found {found}, expected a text")
    question, *options, answer = (str(row[column]) for column in COLUMNS)
    if answer not in LETTERS:
        raise ContentError(f"{place}: Answer: found {show_value(answer)}, expected A, B, C or D")
    shown = "".join(f"\n{letter}. {text}" for letter, text in zip(LETTERS, options, strict=True))
    return Conversation([{"role": "user", "content": f"题目：{question}{shown}\n答案是："}], answer)
