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
    """One of the 67 subjects: the name of its files, the name in its prompt, and its one or two groups."""

    name: str
    chinese: str
    groups: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Exam:
    """A subject's test questions as a dataset, and the examples with answers before each question."""

    subject: Subject
    dataset: EvalDataset
    examples: list[str]


def read_subjects() -> dict[str, Subject]:
    """All subjects by name, sorted like the benchmark's files. Groups are in the table's order."""
    table: dict[str, Any] = read_mapping(TABLE, "table of subjects")
    chinese: dict[str, str] = {}
    for group in table.values():
        if isinstance(group, dict):
            chinese.update(group)
    subjects = {}
    for name in sorted(chinese):
        groups = tuple(group for group in table if name in table[group])
        subjects[name] = Subject(name, chinese[name], groups)
    return subjects


def choose_subjects(text: str | None, data: Path | None) -> list[Subject]:
    """The subjects of `--subjects a,b`, otherwise all of a folder or the hub; `RequestError` for none."""
    subjects = read_subjects()
    if text is None:
        if data is None:
            return list(subjects.values())
        present = [subject for subject in subjects.values() if _file(data, subject.name, "test")]
        if not present:
            raise RequestError(f"{data}: no test/SUBJECT.csv of the benchmark's subjects")
        return present
    names = [name.strip() for name in text.split(",") if name.strip()]
    for name in names:
        if name not in subjects:
            hint = nearest(name, subjects) or f"one of {', '.join(subjects)}"
            raise RequestError(f"--subjects: CMMLU has no subject {name!r}: {hint}")
    if not names:
        raise RequestError("--subjects: found no name, expected e.g. anatomy,logical")
    return [subjects[name] for name in dict.fromkeys(names)]


def fetch(repo: str, names: Iterable[str]) -> Path:
    """Download the subjects' Parquet into the hub's cache; `RequestError` if the hub cannot be reached."""
    patterns = [f"{name}/*/*.parquet" for name in names]
    fix = "give a folder with dev/ and test/, or name a mirror in HF_ENDPOINT"
    try:
        return from_hub(repo, fix, repo_type="dataset", revision=REVISION, allow_patterns=patterns)
    except RequestError as error:
        raise RequestError(f"--data {error}") from error


def read_exam(data: Path, subject: Subject, shots: int) -> Exam:
    """Read test questions and `shots` dev ones; `RequestError` for too few, `ContentError` if broken."""
    path, questions = _read(data, subject, "test")
    other_files: tuple[Path, ...] = ()
    examples = []
    if shots:
        dev_path, dev_questions = _read(data, subject, "dev")
        if len(dev_questions) < shots:
            raise RequestError(f"{dev_path}: {len(dev_questions)} questions, too few for --shots {shots}")
        examples = [f"{each.messages[0]['content']}{each.answer}\n\n" for each in dev_questions[:shots]]
        other_files = (dev_path,)
    records: list[dict[str, object]] = [{} for _ in questions]
    return Exam(subject, EvalDataset(subject.name, path, records, questions, other_files), examples)


def in_groups(subjects: Sequence[Subject]) -> dict[str, list[str]]:
    """Names of the subjects by group, in the benchmark's order of groups."""
    table = read_mapping(TABLE, "table of subjects")
    groups = {}
    for group in table:
        names = [subject.name for subject in subjects if group in subject.groups]
        if names:
            groups[group] = names
    return groups


def prompt(exam: Exam, row: int, encode: Encode, longest: int) -> tuple[list[int], int]:
    """A prompt's ids and its number of shots. The longest shots are dropped until `longest` ids suffice."""
    head = f"以下是关于{exam.subject.chinese}的单项选择题，请直接给出正确答案的选项。\n\n"
    shots = list(exam.examples)
    question = exam.dataset.conversations[row].messages[0]["content"]
    ids = encode(head + "".join(shots) + question)
    while len(ids) > longest and shots:
        shots.remove(max(shots, key=lambda text: len(encode(text))))
        ids = encode(head + "".join(shots) + question)
    return ids, len(shots)


def _read(data: Path, subject: Subject, split: str) -> tuple[Path, list[Conversation]]:
    path = _file(data, subject.name, split)
    if path is None:
        raise RequestError(f"{data / split / subject.name}.csv: the subject's {split} questions are missing")
    rows = _parquet_rows(path) if path.suffix == ".parquet" else _csv_rows(path)
    questions = [_question(row, place) for place, row in rows]
    if not questions:
        raise ContentError(f"{path}: no questions")
    return path, questions


def _file(data: Path, name: str, split: str) -> Path | None:
    for path in (data / split / f"{name}.csv", data / name / split / "0000.parquet"):
        if path.is_file():
            return path
    return None


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


def _question(row: Mapping[str, object], place: str) -> Conversation:
    """A question in the benchmark's form. It ends right before its answer."""
    for column in COLUMNS:
        if not isinstance(row.get(column), str):
            raise ContentError(f"{place}: {column}: found {show_value(row.get(column))}, expected a text")
    question, *options, answer = (str(row[column]) for column in COLUMNS)
    if answer not in LETTERS:
        raise ContentError(f"{place}: Answer: found {show_value(answer)}, expected A, B, C or D")
    lines = "".join(f"\n{letter}. {text}" for letter, text in zip(LETTERS, options, strict=True))
    return Conversation([{"role": "user", "content": f"题目：{question}{lines}\n答案是："}], answer)
