"""inspect_ai's logs: `.eval`, a zip archive with a file for each sample, and the same as one JSON document.

A score is a letter (C correct, I incorrect, P partially, N no answer), a number, or an object of these. The
rows of one question in several epochs are a cluster.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from tuneyard.core.errors import ContentError, show_value, unexpected, wrong_value
from tuneyard.core.files import read_object
from tuneyard.core.language.message import _, relative
from tuneyard.eval.runs.archives import json_members, member_names
from tuneyard.eval.runs.logs import log_reader
from tuneyard.eval.runs.results import part_of
from tuneyard.eval.runs.scored_run import Record, optional_text
from tuneyard.eval.runs.scores import Scores, chat_text, number_of

LETTERS = {"C": 1.0, "I": 0.0, "P": 0.5, "N": 0.0}
WORDS = {"yes": 1.0, "true": 1.0, "no": 0.0, "false": 0.0}
"""Other texts that inspect counts, in any case."""
FIELDS = ("id", "epoch", "input", "target", "output", "scores", "error")
"""What is read of a sample. Its messages and events are much longer."""
HEADER = "header.json"
SAMPLE = re.compile(r"samples/.*\.json", re.DOTALL)
Samples = Sequence[tuple[str, Mapping[str, object]]]
"""The samples with their places."""


@log_reader(
    "inspect_ai",
    _("an inspect_ai log"),
    ".eval",
    ".json",
    fields=(("_journal",), ("eval", "plan", "status")),
    files=("*.eval", "????-??-??T??-??-??*_*.json"),
    scores=True,
)
def inspect_ai(path: Path) -> Iterator[Record]:
    """Read each sample of a finished log."""
    samples: list[tuple[str, Mapping[str, object]]] = []
    if path.suffix.lower() == ".eval":
        header, samples = _archive(path)
    else:
        header = read_object(path)
        listed = header.get("samples")
        if listed is not None and not isinstance(listed, list):
            raise unexpected(path, "samples", listed, _("a list of objects"))
        file = relative(path)
        for number, sample in enumerate(listed or []):
            place = f"{file} sample {number}"
            samples.append((place, _object(sample, place)))
    _check_finished(path, header, len(samples))
    spec = part_of(header, "eval")
    task, model = (optional_text(spec, name) for name in ("task", "model"))
    if not task or not model:
        raise unexpected(path, "eval", spec, _("an object with task and model"))
    several_epochs = any(sample.get("epoch", 1) != 1 for _place, sample in samples)
    judged = _judged_by_letters(samples)
    for place, sample in samples:
        record = {
            **_record(place, sample, judged),
            "model": model.replace("/", "-"),
            "dataset": task.replace("/", "-"),
        }
        if several_epochs:
            record["cluster"] = optional_text(sample, "id")
        yield record


def _archive(path: Path) -> tuple[Mapping[str, object], list[tuple[str, Mapping[str, object]]]]:
    """The header and the samples of an archive. `ContentError` without a header: the run did not end."""
    names = member_names(path)
    if HEADER not in names:
        raise _unfinished(path, "started")
    members = json_members(path, [HEADER, *filter(SAMPLE.fullmatch, names)])
    header = _object(next(members)[1], f"{relative(path)}/{HEADER}")
    samples: list[tuple[str, Mapping[str, object]]] = []
    for place, value in members:
        sample = _object(value, place)
        samples.append((place, {name: sample.get(name) for name in FIELDS}))
    return header, samples


def _object(value: object, place: str) -> Mapping[str, object]:
    if not isinstance(value, dict):
        raise wrong_value(place, value, _("an object"))
    return value


def _check_finished(path: Path, header: Mapping[str, object], count: int) -> None:
    """`ContentError` for a run that did not succeed, and for a log without its samples."""
    if header.get("status") != "success":
        raise _unfinished(path, header.get("status"))
    if not count:
        raise ContentError(
            _(
                "{path}: an inspect_ai log without samples, expected one for each example: run "
                "`inspect eval` without --no-log-samples",
                path=path,
            )
        )
    total = part_of(header, "results").get("total_samples")
    if isinstance(total, int) and count < total:
        raise ContentError(
            _(
                "{path}: found {count} of {total} samples, expected all of them: run `inspect "
                "eval-retry` on it",
                path=path,
                count=count,
                total=total,
            )
        )


def _unfinished(path: Path, status: object) -> ContentError:
    return ContentError(
        _(
            "{path}: an inspect_ai log with the status {status}, expected success: run `inspect "
            "eval-retry` on it first",
            path=path,
            status=show_value(status),
        )
    )


def _record(place: str, sample: Mapping[str, object], judged: set[str]) -> Record:
    """A sample as a record; the answer is that of the main score."""
    epoch = sample.get("epoch")
    row = optional_text(sample, "id") or ""
    if epoch not in (None, 1):
        row = f"{row}, epoch {show_value(epoch)}"
    by_scorer = _scores(sample)
    numbers: Scores = {}
    answers: dict[str, str] = {}
    for scorer, score in by_scorer.items():
        fields = _object(score, f"{place}: score {scorer}")
        for name, value in _values(scorer, fields.get("value")):
            numbers[name] = _number(value)
            answers[name] = optional_text(fields, "answer") or ""
    names = sorted(numbers, key=lambda name: name not in judged)  # keeps the order of the scorers
    completion = optional_text(part_of(sample, "output"), "completion") or ""
    main = names[0] if names else ""
    error = part_of(sample, "error")
    question = chat_text(sample.get("input"))
    target = sample.get("target")
    if isinstance(target, list) and len(target) == 1:
        target = target[0]
    answer = answers.get(main) or completion
    return {
        "id": row,
        "gold": optional_text({"target": target}, "target"),
        "prediction": answer,
        "output": completion or answer,
        "question": question,
        "fingerprint": question,
        "scores": {name: numbers[name] for name in names},
        "unscored": error.get("message"),
        "place": place,
    }


def _scores(sample: Mapping[str, object]) -> Mapping[str, object]:
    """The scores of a sample by scorer. The first versions of inspect had a single `score`."""
    if sample.get("score") is not None:
        return {"score": sample["score"]}
    return part_of(sample, "scores")


def _values(scorer: str, value: object) -> list[tuple[str, object]]:
    """The values of a score by name: `scorer` for one, `scorer.key` for each of several."""
    if isinstance(value, Mapping):
        return [(f"{scorer}.{key}", inner) for key, inner in value.items()]
    if isinstance(value, list):
        return [(f"{scorer}.{place}", inner) for place, inner in enumerate(value)]
    return [(scorer, value)]


def _number(value: object) -> float | None:
    """A score as inspect's own metrics count it, None for another text."""
    if not isinstance(value, str):
        return number_of(value)
    if value in LETTERS:
        return LETTERS[value]
    if value.lower() in WORDS:
        return WORDS[value.lower()]
    try:
        return number_of(float(value))
    except ValueError:
        return None


def _judged_by_letters(samples: Samples) -> set[str]:
    """Names of the scores that are letters in some sample. They decide before numbers."""
    names: set[str] = set()
    for _place, sample in samples:
        for scorer, score in _scores(sample).items():
            if isinstance(score, Mapping):
                values = _values(scorer, score.get("value"))
                names.update(name for name, value in values if isinstance(value, str) and value in LETTERS)
    return names
