"""Results of other tools: a file here, or an entry point `tuneyard.logs`, reads one format.

A reader is one function with `@log_reader` that gets a path and yields a `Record` for each scored example:
`id`, `gold` and `prediction`. Thoughts are cut out of both answers here, for all formats. Optional are
`correct` (by default both answers have one `answer_key`), `scores`, `model`, `dataset`, `cluster`, `type`,
`subtype`, `confidence`, `question` and `output` (for people to read on the page, by default the prediction
with its thought), `place` (file and line), `fingerprint`, equal for the same example, and any field for
`eval compare --by`. `scores` are the tool's own figures by name: the first one, 0 or 1 in every row, says
which answers are correct, and `eval compare --metric` compares any of them.
It names the suffixes that it reads, and the fields by which it recognises the format in the first record.
`eval compare`, the page and `eval.runs.find` know formats from here alone (docs/extending.md).
"""

import contextlib
import fnmatch
import functools
import hashlib
import math
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from tuneyard.core.errors import ContentError, show_value, unexpected
from tuneyard.core.files import read_json
from tuneyard.core.language.message import _, joined, relative
from tuneyard.core.plugins import Plugin, guarded, registry
from tuneyard.eval.figures.answers import answer_key, cut_thought
from tuneyard.eval.runs.archives import member_names
from tuneyard.eval.runs.findings import DecidingScore
from tuneyard.eval.runs.other_tools import other_file, recognised_other, refuse_other_table
from tuneyard.eval.runs.scored_run import Record, Row, RunFacts, ScoredRun, assemble, optional_text
from tuneyard.eval.runs.scores import judged_by_a_score, score_names, with_scores_as_fields
from tuneyard.eval.runs.tables import TABLES, placed_lines

GROUP: Literal["tuneyard.logs"] = "tuneyard.logs"
FIELDS = ("id", "gold", "prediction")
LINES = (".jsonl", ".ndjson")
WITHOUT_NAME = "rows"  # the dataset of a log that does not name one
DATE = re.compile(r"_\d{4}-\d\d-\d\dT\d\d-\d\d-\d\d(\.\d+)?$")
"""The time of a run at the end of a file's name: of several logs of one task the newest counts."""
DATE_BEFORE = re.compile(r"^\d{4}-\d\d-\d\dT\d\d-\d\d-\d\d[-+]\d\d-?\d\d_")
"""The time of a run at the beginning of a file's name, as inspect writes it."""


Rows = Callable[[Path], Iterator[Record]]
Names = Callable[[Path, Record], Record]


@dataclass(frozen=True, slots=True)
class LogReader:
    """A format: `about` names it for people, `fields` are the sets of fields of which one must be there.

    `files` are the names under which its tool writes logs into folders, as glob patterns. `names` returns
    the model and the dataset of a record by its file: rows that need no answers are read without `function`,
    unless its records have `scores`. `belongs` keeps only some of the `files` in a folder.
    """

    name: str
    about: str
    suffixes: tuple[str, ...]
    fields: tuple[tuple[str, ...], ...]
    function: Rows
    files: tuple[str, ...] = ()
    names: Names | None = None
    scores: bool = False
    belongs: Callable[[Path], bool] | None = None
    plugin: Plugin | None = None

    def recognised(self, path: Path, fields: Iterable[str]) -> int:
        """Count the fields by which a file is of the format; 0 if it is not."""
        present = set(fields)
        if path.suffix.lower() not in self.suffixes:
            return 0
        return max(len(one) if present.issuperset(one) else 0 for one in self.fields)

    def records(self, path: Path) -> Iterator[Record]:
        """Read the records of a file. `PluginError` if a plug-in raises or yields another type.

        `ContentError` for a field that a reader of ours takes for granted, and a record lacks.
        """
        with guarded(self.plugin), _named_fields(path, self.plugin):
            for record in self.function(path):
                if not isinstance(record, Mapping):
                    raise TypeError(
                        _(
                            "found {value}, expected a dict with {fields}",
                            value=show_value(record),
                            fields=", ".join(FIELDS),
                        )
                    )
                yield record

    @property
    def expected(self) -> str:
        """Description of the format for messages: its suffixes, its name, and its fields."""
        sets_of_fields = [", ".join(names) for names in self.fields]
        return _(
            "{suffixes} {about} ({fields})",
            suffixes="/".join(self.suffixes),
            about=self.about,
            fields=joined(sets_of_fields, _(" or ")),
        )


@contextlib.contextmanager
def _named_fields(path: Path, plugin: Plugin | None) -> Iterator[None]:
    """Turn the `KeyError` of a reader of ours into a message. A plug-in's has the guard of all its errors."""
    try:
        yield
    except KeyError as error:
        if plugin is not None:
            raise
        field = show_value(error.args[0])
        raise ContentError(_("{path}: a record lacks the field {field}", path=path, field=field)) from error


def log_reader(
    name: str,
    about: str,
    *suffixes: str,
    fields: tuple[tuple[str, ...], ...],
    files: tuple[str, ...] = (),
    names: Names | None = None,
    scores: bool = False,
    belongs: Callable[[Path], bool] | None = None,
) -> Callable[[Rows], LogReader]:
    """Declare a function as the reader of a format; for the arguments see `LogReader`."""
    return lambda function: LogReader(name, about, suffixes, fields, function, files, names, scores, belongs)


@functools.cache
def log_readers() -> dict[str, LogReader]:
    """Every reader by name. A broken plug-in is left out with a warning."""
    return registry(GROUP, __name__, LogReader, _("function with @log_reader"))


def read_log(path: Path) -> list[ScoredRun]:
    """Read the runs of a file, one for each model and dataset in it.

    `ContentError` if no reader recognises the format; it lists the readable formats.
    """
    reader = reader_of(path)
    records_of = by_model_and_dataset(path, reader.records(path))
    runs = []
    for (model, dataset), records in records_of.items():
        facts: RunFacts = {"log": reader.name}
        if reader.scores:
            score, others = score_names(records)
            records = judged_by_a_score(records, score, others)
            facts["settings"] = {"score": score}
        elif records[0].get("deciding_score"):
            facts["settings"] = {"score": records[0]["deciding_score"]}
        rows = with_one_spelling([row_of(record, relative(path)) for record in records])
        if all(record.get("fingerprint") for record in records):
            lines = sorted(f"{row.id} {row.record['fingerprint']}" for row in rows)
            digest = hashlib.sha256("\n".join(lines).encode(errors="surrogatepass")).hexdigest()
            facts["hashes"] = {"data": f"{reader.name} {digest}"}
        runs.append(assemble(model, dataset, path, rows, facts))
    return runs


def deciding_scores(path: Path, runs: Sequence[ScoredRun]) -> list[DecidingScore]:
    """Which score decides in the runs of a log, if its tool gave several to each answer."""
    findings: list[DecidingScore] = []
    for run in runs:
        if log_readers()[str(run.facts["log"])].scores:
            score, others = score_names(run.records)
            finding = DecidingScore(path, score, tuple(others))
            if others and finding not in findings:
                findings.append(finding)
    return sorted(findings, key=lambda finding: (finding.score, finding.others))


def by_model_and_dataset(path: Path, records: Iterable[Record]) -> dict[tuple[str, str], list[Record]]:
    """The records of a file by the model and the dataset that they name: by default the file is the model.

    `ContentError` if it has none.
    """
    grouped: dict[tuple[str, str], list[Record]] = {}
    for record in records:
        name = str(record.get("model") or path.stem), str(record.get("dataset") or WITHOUT_NAME)
        grouped.setdefault(name, []).append(record)
    if not grouped:
        raise ContentError(_("{path}: found no rows, expected one for each scored example", path=path))
    return grouped


def row_of(record: Record, where: str) -> Row:
    """A record as a row of a run. `ContentError` if it lacks an id or a gold answer."""
    place = record.get("place", where)
    row_id, gold, prediction = (optional_text(record, name) for name in FIELDS)
    if not row_id or gold is None:
        fields = ", ".join(
            name for name, value in record.items() if value not in (None, "") and name != "place"
        )
        raise ContentError(
            _(
                "{place}: expected {expected} in every row, found {fields}",
                place=place,
                expected=", ".join(FIELDS),
                fields=fields or _("none"),
            )
        )
    output = prediction or ""
    gold, prediction = cut_thought(gold), cut_thought(output)
    correct = record.get("correct", answer_key(gold) == answer_key(prediction))
    if not isinstance(correct, bool):
        raise unexpected(place, "correct", correct, _("true or false"))
    kept = {"output": output, **record, "place": place}
    return Row(row_id, gold, prediction, correct, _confidence(record, place), kept)


def with_one_spelling(rows: Sequence[Row]) -> list[Row]:
    """The rows with equal answers spelled as the first expected one of them: `Yes.` as `yes`.

    A prediction that its tool has judged stays as it is.
    """
    spellings: dict[str, str] = {}
    for row in rows:
        spellings.setdefault(answer_key(row.gold), row.gold)
    respelled = []
    for row in rows:
        prediction = row.prediction
        if "correct" not in row.record:
            prediction = spellings.get(answer_key(prediction), prediction)
        gold = spellings[answer_key(row.gold)]
        respelled.append(row._replace(gold=gold, prediction=prediction))
    return respelled


def _confidence(record: Record, place: str) -> float | None:
    """The confidence of a record, None without one. The cells of a CSV are texts."""
    value = record.get("confidence")
    if value is None:
        return None
    number = math.nan
    if not isinstance(value, bool):
        with contextlib.suppress(TypeError, ValueError, OverflowError):
            number = float(value)
    if not 0 <= number <= 1:
        expected = _("a number from 0 to 1; a column of another name is left out")
        raise unexpected(place, "confidence", value, expected)
    return number


def has_figures(path: Path) -> bool:
    """True if `--metric` can read figures of the file's rows: scores of its tool, or fields of JSON Lines.

    `ContentError` for a file of another tool that has no judged rows.
    """
    fields = _first_fields(path)
    reader = _recognised(path, fields)
    _refuse_other(path, fields, reader)
    return path.suffix in LINES or (reader is not None and reader.scores)


def measured_records(path: Path) -> Iterator[Record]:
    """The rows of a log that `has_figures`, with model and dataset, and the scores of its tool as fields."""
    reader = _recognised(path, _first_fields(path))
    if reader is not None and reader.scores:
        for record in reader.records(path):
            yield with_scores_as_fields(record)
        return
    for record in placed_lines(path):
        if reader is not None and reader.names is not None:
            yield {**record, **reader.names(path, record)}
        else:
            yield record


def reader_of(path: Path) -> LogReader:
    """Find the reader that recognises a file by the most fields of its first record.

    `ContentError` for a file of another tool that has no judged rows, and for an unknown one.
    """
    fields = _first_fields(path)
    reader = _recognised(path, fields)
    _refuse_other(path, fields, reader)
    if reader is None:
        names = ", ".join(fields[:8]) or _("none")
        raise _unknown(path, _("the fields {names}", names=names))
    return reader


def _refuse_other(path: Path, fields: Sequence[str], reader: LogReader | None) -> None:
    """`ContentError` if a file has more fields of another tool's kind than of the reader's format."""
    other = recognised_other(path, fields)
    if other is not None and (reader is None or len(other.fields) > reader.recognised(path, fields)):
        raise other_file(path, other)


def _recognised(path: Path, fields: Sequence[str]) -> LogReader | None:
    best = max(log_readers().values(), key=lambda reader: reader.recognised(path, fields))
    if not best.recognised(path, fields):
        return None
    return best


def _unknown(path: Path, content: str) -> ContentError:
    """Error for a file in an unknown format, with the list of readable formats."""
    formats = [reader.expected for reader in log_readers().values()]
    return ContentError(
        _(
            "{path}: no results that can be read: found {content}; expected one of: {formats}. "
            "Rename its columns to id, gold and prediction, or write a plug-in (docs/extending.md)",
            path=path,
            content=content,
            formats=joined(formats, _("; ")),
        )
    )


def logs_in(folder: Path, levels: Iterable[str]) -> list[Path]:
    """Find the logs of other tools in a folder, at glob prefixes `levels`; the newest of each name.

    A pattern with folders is also found inside of them: `reviews/*/*.jsonl` in OUT, OUT/reviews and below.
    """
    logs: set[Path] = set()
    for reader in log_readers().values():
        for pattern in reader.files:
            for inner in _patterns_inside(folder, pattern):
                for level in levels:
                    matches = folder.glob(level + inner)
                    logs.update(log for log in matches if reader.belongs is None or reader.belongs(log))
    newest: dict[tuple[Path, str], Path] = {}
    for log in sorted(logs):  # dates in names sort as they follow one another
        parent = log.parent
        if not DATE.sub("", f"_{parent.name}"):
            parent = parent.parent
        newest[parent, DATE_BEFORE.sub("", DATE.sub("", log.stem))] = log
    return list(newest.values())


def _patterns_inside(folder: Path, pattern: str) -> Iterator[str]:
    """The pattern, and what is left of it in a folder whose path ends as the pattern begins."""
    yield pattern
    parts = pattern.split("/")
    names = folder.absolute().parts
    for count in range(1, len(parts)):
        pairs = zip(names[-count:], parts[:count], strict=False)
        if len(names) > count and all(fnmatch.fnmatchcase(name, part) for name, part in pairs):
            yield "/".join(parts[count:])


def _first_fields(path: Path) -> list[str]:
    """Fields of the first record: columns of a table, keys of a JSON object or of the first line.

    Those of an archive are its outermost files and folders.

    `ContentError` if a table has no record, or a JSON document is not an object.
    """
    refuse_other_table(path)
    suffix = path.suffix.lower()
    if suffix == ".eval":
        return list(dict.fromkeys(name.partition("/")[0] for name in member_names(path)))
    if suffix in TABLES:
        first = next(iter(TABLES[suffix](path)), None)
        if first is None:
            raise ContentError(_("{path}: found no rows, expected one for each scored example", path=path))
        return [name for name in first if name != "place"]
    if suffix == ".json":
        try:
            document = read_json(path)
        except ContentError as error:
            raise ContentError(
                _("{error}; if it has one object a line, name it {name}.jsonl", error=error, name=path.stem)
            ) from error
        if isinstance(document, list) and document and isinstance(document[0], Mapping):
            other = recognised_other(path, document[0])
            if other is not None:
                raise other_file(path, other)
        if not isinstance(document, Mapping):
            content = _(
                "the JSON {value} (write a list as JSON Lines: one object a line)", value=show_value(document)
            )
            raise _unknown(path, content)
        return list(document)
    return []
