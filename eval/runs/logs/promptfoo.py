"""promptfoo's results (`promptfoo eval -o NAME.json` or `NAME.jsonl`): each test, prompt and provider.

A provider is a model. Each prompt is a dataset of its own if there are several. Tests with the
same variables, as `--repeat` makes them, are a cluster.
"""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from tuneyard.core.errors import ContentError, unexpected
from tuneyard.core.files import read_object
from tuneyard.core.language.message import _, relative
from tuneyard.eval.runs.logs import log_reader
from tuneyard.eval.runs.results import part_of
from tuneyard.eval.runs.scored_run import Record, optional_text
from tuneyard.eval.runs.scores import numbers_of
from tuneyard.eval.runs.tables import placed_lines

PASS, ERROR = "pass", 2
"""The name of the score for all assertions together; promptfoo's reason for a test without an answer."""
TEXT_ASSERTIONS = ("equals", "contains", "icontains", "starts-with", "similar", "levenshtein")


@log_reader(
    "promptfoo",
    _("promptfoo's results"),
    ".json",
    ".jsonl",
    fields=(
        ("evalId", "results", "config"),
        ("results", "config", "shareableUrl"),
        ("promptIdx", "testIdx", "success"),
    ),
    scores=True,
)
def promptfoo(path: Path) -> Iterator[Record]:
    """Read the tests of one evaluation."""
    name, rows = path.stem, list(placed_lines(path)) if path.suffix.lower() == ".jsonl" else []
    if path.suffix.lower() == ".json":
        document = read_object(path)
        name = optional_text(part_of(document, "config"), "description") or path.stem
        rows = _rows(path, part_of(document, "results").get("results"))
    prompts: dict[str, int] = {}
    questions: dict[tuple[str, str | None], str] = {}
    records = []
    for row in sorted(rows, key=_column):
        prompt = optional_text(row, "promptId") or optional_text(part_of(row, "prompt"), "label") or ""
        number = prompts.setdefault(prompt, len(prompts) + 1)
        test = optional_text(row, "testIdx")
        if test is None:
            raise ContentError(
                _(
                    "{place}: testIdx is missing, expected the number of the test: results of an old "
                    "promptfoo; evaluate again with a version that writes it (results.version 3)",
                    place=row["place"],
                )
            )
        question = optional_text(row, "vars") or optional_text(part_of(row, "prompt"), "raw")
        first_test = questions.setdefault((prompt, question), test)
        records.append(
            {**_record(row), "id": test, "cluster": first_test, "dataset": f"{name},prompt {number}"}
        )
    repeated = any(record["cluster"] != record["id"] for record in records)
    for record in records:
        if not repeated:
            record.pop("cluster")
        if len(prompts) == 1:
            record["dataset"] = name
        yield record


def _rows(path: Path, rows: object) -> list[Record]:
    if not isinstance(rows, list):
        raise unexpected(path, "results.results", rows, _("a list of objects"))
    placed: list[Record] = []
    file = relative(path)
    for number, row in enumerate(rows):
        if not isinstance(row, dict):
            raise unexpected(path, _("results.results {number}", number=number), row, _("an object"))
        placed.append({**row, "place": f"{file} result {number}"})
    return placed


def _column(row: Record) -> int:
    """The column of a row in promptfoo's table: prompts are numbered in its order."""
    column = row.get("promptIdx")
    return column if isinstance(column, int) else 0


def _model(row: Record) -> str:
    """The provider's label, otherwise its id."""
    provider = row.get("provider")
    if isinstance(provider, Mapping):
        name = optional_text(provider, "label") or optional_text(provider, "id")
    else:
        name = optional_text(row, "provider")
    if not name:
        raise unexpected(row["place"], "provider", provider, _("an object with an id"))
    return name


def _record(row: Record) -> dict[str, object]:
    prompt = optional_text(part_of(row, "prompt"), "raw")
    output = optional_text(part_of(row, "response"), "output") or ""
    passed = row.get("success")
    if not isinstance(passed, bool):
        raise unexpected(row["place"], "success", passed, _("true or false"))
    has_error = row.get("failureReason") == ERROR
    scores: dict[str, object] = {PASS: None if has_error else passed}
    if not has_error:
        scores |= {"score": row.get("score"), **part_of(row, "namedScores")}
    return {
        "model": _model(row),
        "gold": _expected(part_of(row, "testCase").get("assert")),
        "prediction": output,
        "question": prompt,
        "fingerprint": prompt,
        "scores": numbers_of(scores),
        "unscored": row.get("error") if has_error else None,
        "place": row["place"],
    }


def _expected(assertions: object) -> str:
    """The text that a test's only assertion compares with, otherwise all of its assertions as JSON."""
    if not isinstance(assertions, Sequence) or isinstance(assertions, str):
        return ""
    if len(assertions) == 1 and isinstance(assertions[0], Mapping):
        only = assertions[0]
        if only.get("type") in TEXT_ASSERTIONS:
            return optional_text(only, "value") or ""
    return optional_text({"assert": list(assertions)}, "assert") or ""
