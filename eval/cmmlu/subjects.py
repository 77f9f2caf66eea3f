"""CMMLU: its subjects and their groups, its questions from a folder or the hub, and its prompt.

The benchmark (github.com/haonan-li/CMMLU, arXiv:2306.09212) keeps five example questions (dev) and some
170 test questions of each subject. The hub has them as Parquet, its own folder as dev/ and test/ of CSV.
"""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import cast

from tuneyard.core.documents import read_mapping
from tuneyard.core.errors import ContentError, RequestError, nearest, unexpected
from tuneyard.core.files.hub import from_hub
from tuneyard.core.language.message import _
from tuneyard.core.llamafactory.prompt import PromptAndAnswer
from tuneyard.eval.data.dataset import EvalDataset, digest_of
from tuneyard.eval.data.origin import unknown_origin
from tuneyard.eval.runs.tables import TABLES

HUB_ID = "haonan-li/cmmlu"
REVISION = "refs/convert/parquet"  # SUBJECT/SPLIT/0000.parquet: no dataset's own code is run
TABLE = Path(__file__).with_name("cmmlu.yaml")
LETTERS = ("A", "B", "C", "D")
COLUMNS = ("Question", *LETTERS, "Answer")


def read_subjects() -> dict[str, str]:
    """The name of each subject in its prompt, by the name of its files, in the benchmark's order."""
    chinese: dict[str, str] = {}
    for group in read_mapping(TABLE, _("table of subjects")).values():
        if isinstance(group, dict):
            chinese.update(group)
    return dict(sorted(chinese.items()))


def choose_subjects(text: str | None, data: Path | None) -> dict[str, str]:
    """The subjects of `--subjects a,b`, otherwise all of a folder or the hub; `RequestError` for none.

    The result is a part of `read_subjects`.
    """
    subjects = read_subjects()
    if text is None:
        if data is None:
            return subjects
        present = {name: subjects[name] for name in subjects if _file(data, name, "test")}
        if not present:
            raise RequestError(
                _(
                    "{path}: no test/SUBJECT.csv of the benchmark's subjects; name the unpacked folder, "
                    "or leave --data out to take it from the hub",
                    path=data,
                )
            )
        return present
    names = [name.strip() for name in text.split(",") if name.strip()]
    for name in names:
        if name not in subjects:
            hint = nearest(name, subjects) or _("one of {names}", names=", ".join(subjects))
            raise RequestError(_("--subjects: CMMLU has no subject {name!r}: {hint}", name=name, hint=hint))
    if not names:
        raise RequestError(_("--subjects: found no name, expected e.g. anatomy,logical"))
    return {name: subjects[name] for name in names}


def fetch(repo: str, names: Iterable[str]) -> Path:
    """Download the subjects' Parquet into the hub's cache; `RequestError` if the hub cannot be reached."""
    patterns = [f"{name}/*/*.parquet" for name in names]
    fix = _("give a folder with dev/ and test/ as --data, or name a mirror in HF_ENDPOINT")
    return from_hub(repo, fix, repo_type="dataset", revision=REVISION, allow_patterns=patterns)


def read_exam(data: Path, subject: str, chinese: str, shots: int) -> EvalDataset:
    """Read the test questions, each after `shots` dev ones with their answers, in the benchmark's prompt.

    `RequestError` for too few, `ContentError` if a file is broken.
    """
    path, questions = _read(data, subject, "test")
    before = f"以下是关于{chinese}的单项选择题，请直接给出正确答案的选项。\n\n"
    files = [path]
    if shots:
        dev_path, examples = _read(data, subject, "dev")
        if len(examples) < shots:
            raise RequestError(
                _(
                    "{path}: {number} questions, too few for --shots {shots}",
                    path=dev_path,
                    number=len(examples),
                    shots=shots,
                )
            )
        before += "".join(f"{question}{answer}\n\n" for question, answer in examples[:shots])
        files.append(dev_path)
    records: list[dict[str, object]] = [{"instruction": question} for question, _answer in questions]
    conversations, alone = [], []
    for question, answer in questions:
        conversations.append(PromptAndAnswer([{"role": "user", "content": before + question}], answer))
        alone.append(PromptAndAnswer([{"role": "user", "content": question}], answer))
    origin = unknown_origin(alone)  # a training has the questions without examples
    return EvalDataset(subject, path, records, conversations, origin, digest_of(*files))


def in_groups(subjects: Iterable[str]) -> dict[str, list[str]]:
    """Names of the subjects by group, in the benchmark's order of groups."""
    table = cast(dict[str, list[str]], read_mapping(TABLE, _("table of subjects")))
    groups = {}
    for group, members in table.items():
        names = [name for name in subjects if name in members]
        if names:
            groups[group] = names
    return groups


def _read(data: Path, subject: str, split: str) -> tuple[Path, list[tuple[str, str]]]:
    """The file of a split, and its questions with their answers."""
    path = _file(data, subject, split)
    if path is None:
        raise RequestError(
            _(
                "{path}.csv: the subject's {split} questions are missing",
                path=data / split / subject,
                split=split,
            )
        )
    questions = [_question(row) for row in TABLES[path.suffix](path)]
    if not questions:
        raise ContentError(_("{path}: no questions", path=path))
    return path, questions


def _file(data: Path, name: str, split: str) -> Path | None:
    for path in (data / split / f"{name}.csv", data / name / split / "0000.parquet"):
        if path.is_file():
            return path
    return None


def _question(row: Mapping[str, object]) -> tuple[str, str]:
    """A question in the benchmark's form, which ends right before its answer, and the answer."""
    for column in COLUMNS:
        if not isinstance(row.get(column), str):
            raise unexpected(row["place"], column, row.get(column), _("a text"))
    question, *options, answer = (str(row[column]) for column in COLUMNS)
    if answer not in LETTERS:
        raise unexpected(row["place"], "Answer", answer, _("A, B, C or D"))
    lines = "".join(f"\n{letter}. {text}" for letter, text in zip(LETTERS, options, strict=True))
    return f"题目：{question}{lines}\n答案是：", answer
