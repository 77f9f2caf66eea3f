"""Rating sheets: CSV that opens well in spreadsheets and cannot run anything there, blind, and read back;
and what the marks in them say, as Markdown and as JSON.

The key says which row is whose answer. Every id begins with the tag of its sheet, so that no sheet is
read with another's key, and with a letter, so that no spreadsheet takes it for a date or a number.
"""

import csv
import hashlib
import io
import json
import random
import re
import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from tuneyard.core.errors import SHOWN, ContentError, RequestError, counted, show_value
from tuneyard.core.files import read_object
from tuneyard.core.number_format import NONE, Table, grid, interval, p_cell, show_p
from tuneyard.eval.statistics.family import ALPHA
from tuneyard.eval.statistics.ratings import (
    CRITERIA,
    OVERALL,
    Outcome,
    Rating,
    agreement,
    mean_marks,
    outcomes,
)

COLUMNS = ("id", "prompt", "reference", "answer", *CRITERIA, "comment")
# OWASP's list of what begins a formula, full-width forms included: East Asian spreadsheets take them too.
# The sheet has commas and quotes but may be opened with ; or tab: then a cell begins after each of those, and
# after each line break, since the quotes stand in the middle of cells.
FORMULA = re.compile(r"(^|[;\t\n])((?:[^\S\t\n]|[\"'])*+[=+\-@＝＋－＠])")
TAB = re.compile(r"(^|[;\n])([\"']*\t)")  # what a part of a cell may not begin with either
LINE = re.compile(r"'*\n")  # nor a whole cell
CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")
LONGEST = 32_000  # letters in a cell; Excel holds 32,767
MARK = re.compile(r"[1-5](?:\.0+)?")
FENCE = re.compile(r"^\s*(`{3,})", re.MULTILINE)
DELIMITERS = (",", ";", "\t")  # spreadsheets save the one of their language


@dataclass(frozen=True, slots=True)
class Answered:
    """A prompt, the answer that the data has for it ("" without one), every model's, and its cluster."""

    prompt: str
    reference: str
    answers: Mapping[str, str]
    cluster: str | None = None


@dataclass(frozen=True, slots=True)
class Key:
    """Which prompt (from 1) and model each id of a sheet stands for, the first model being the base; and the
    clusters of those prompts that have one."""

    models: list[str]
    answers: Mapping[str, tuple[int, str]]
    clusters: Mapping[int, str]


def make_sheet(asked: Sequence[Answered], seed: int) -> tuple[bytes, dict[str, dict[str, object]]]:
    """Return the sheet as CSV (UTF-8 with a byte order mark), and the prompt and model behind each id; the
    answers to each prompt stand one below the other in an order drawn with `seed`."""
    generator = random.Random(seed)
    drawn = [
        (number, one, model)
        for number, one in enumerate(asked, 1)
        for model in generator.sample(list(one.answers), len(one.answers))
    ]
    content = json.dumps([[one.prompt, one.answers[model]] for _, one, model in drawn])
    tag = f"s{hashlib.sha256(content.encode()).hexdigest()[:6]}"
    text = io.StringIO()
    writer = csv.writer(text, quoting=csv.QUOTE_ALL)
    writer.writerow(COLUMNS)
    answers: dict[str, dict[str, object]] = {}
    for place, (number, one, model) in enumerate(drawn, 1):
        name = f"{tag}-{place:0{len(str(len(drawn)))}}"
        answers[name] = {"prompt": number, "model": model}
        answers[name] |= {} if one.cluster is None else {"cluster": one.cluster}
        shown = map(safe_cell, (one.prompt, one.reference, one.answers[model]))
        writer.writerow([name, *shown, *[""] * (len(CRITERIA) + 1)])
    return text.getvalue().encode("utf-8-sig"), answers


def safe_cell(text: str) -> str:
    """Return a text of which no spreadsheet takes a part for a formula, whatever delimiter it is opened with.

    An apostrophe is put before what would begin one; without control characters, and cut where a cell ends.
    """
    text = CONTROL.sub("\N{REPLACEMENT CHARACTER}", text.replace("\r\n", "\n").replace("\r", "\n"))
    text = TAB.sub(r"\1'\2", FORMULA.sub(r"\1'\2", text))
    text = f"'{text}" if LINE.match(text) else text
    return text if len(text) <= LONGEST else f"{text[:LONGEST]}… (cut: the whole text is in answers.md)"


def check_key(path: Path, facts: Mapping[str, object]) -> None:
    """Raise `RequestError` where a key of other facts stands: without it no copy of its sheet can be read."""
    before = read_object(path) if path.exists() else facts
    if changed := [name for name, value in facts.items() if before.get(name) != value]:
        raise RequestError(
            f"{path} is the key of a sheet with other {' and '.join(changed)}, which raters may hold: "
            "choose another --out, or --force"
        )


def check_unrated(path: Path) -> None:
    """Raise `RequestError` where a sheet stands that somebody has begun to fill in."""
    if path.exists() and any(row[name] for _, row in read_rows(path) for name in (*CRITERIA, "comment")):
        raise RequestError(f"{path} holds somebody's marks: move it away, or choose another --out")


def read_key(path: Path) -> Key:
    """Read a sheet's key; `ContentError` where it is none."""
    value = read_object(path)
    models, answers = value.get("models"), value.get("answers")
    try:
        if not isinstance(models, list) or not isinstance(answers, dict):
            raise TypeError
        found = {name: (int(entry["prompt"]), str(entry["model"])) for name, entry in answers.items()}
    except (KeyError, TypeError, ValueError) as error:
        raise ContentError(f"{path}: no key of a rating sheet: give its key.json with --key") from error
    clusters = {found[n][0]: str(e["cluster"]) for n, e in answers.items() if e.get("cluster") is not None}
    return Key([str(model) for model in models], found, clusters)


def read_sheet(path: Path, key: Key, rater: str) -> list[Rating]:
    """Return a rater's marks; rows without any are left out.

    `ContentError` names by row the marks that are not 1 to 5 and the ids that the key does not know or that
    stand twice, and says so where there are no marks at all.
    """
    problems, ratings, seen = [], [], set[str]()
    for number, row in read_rows(path):
        name, marks = row["id"], {criterion: row[criterion] for criterion in CRITERIA if row[criterion]}
        problems += [f"{path} row {number}: {problem}" for problem in _problems(name, marks, key, seen)]
        seen.add(name)
        if marks:
            ratings.append((name, marks))
    if problems:
        more = f"\n… {len(problems) - SHOWN} more" if len(problems) > SHOWN else ""
        raise ContentError("\n".join(problems[:SHOWN]) + more)
    if not ratings:
        raise ContentError(f"{path}: no marks in it: rate from 1 to 5 under {', '.join(CRITERIA)}")
    return [
        Rating(rater, *key.answers[name], {criterion: int(mark[0]) for criterion, mark in marks.items()})
        for name, marks in ratings
    ]


def _problems(name: str, marks: Mapping[str, str], key: Key, seen: set[str]) -> Iterator[str]:
    if name not in key.answers:
        yield f"id {show_value(name)} is not in the key: is it the key of another sheet?"
    if name in seen:
        yield f"id {show_value(name)} stands twice"
    for criterion, mark in marks.items():
        if not MARK.fullmatch(mark):
            yield f"{criterion}: found {show_value(mark)}, expected 1, 2, 3, 4, 5 or nothing"


def read_rows(path: Path) -> Iterator[tuple[int, dict[str, str]]]:
    """Yield (row number as a spreadsheet counts, cells by column) of every row that is not empty; only ids
    and marks are used, which are ASCII in whatever encoding a spreadsheet saved the sheet."""
    data = path.read_bytes()
    if data.startswith(b"PK") or b"\0" in data:
        raise ContentError(f"{path}: not CSV: save the sheet as CSV (UTF-8)")
    text = data.decode("utf-8-sig", errors="replace")
    delimiter = max(DELIMITERS, key=text.partition("\n")[0].count)
    csv.field_size_limit(4 * LONGEST)  # of the whole process, whatever another reader set
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter)
    try:
        names = [name.strip().lower() for name in next(reader, [])]
        if missing := [name for name in ("id", *CRITERIA) if name not in names]:
            raise ContentError(f"{path} row 1: no column {', '.join(missing)}: keep the heading as it was")
        for number, cells in enumerate(reader, 2):
            plain = [unicodedata.normalize("NFKC", cell).strip() for cell in cells]
            if any(plain):
                yield number, dict.fromkeys((*names, "comment"), "") | dict(zip(names, plain, strict=False))
    except csv.Error as error:
        raise ContentError(f"{path}: line {reader.line_num}: not CSV: {error}") from error


def side_by_side(asked: Sequence[Answered]) -> str:
    """Return every prompt, its reference answer where there is one, and each model's answer, named, in fenced
    blocks: nothing in an answer is taken for Markdown or HTML."""
    parts = ["# Answers side by side", "This page names the models: raters get sheet.csv alone."]
    for number, one in enumerate(asked, 1):
        texts = {"Prompt": one.prompt, "Reference": one.reference, **one.answers}
        if not one.reference:
            del texts["Reference"]
        parts += [f"## {number}", *(f"**{name}**\n\n{_fenced(text)}" for name, text in texts.items())]
    return "\n\n".join(parts) + "\n"


def _fenced(text: str) -> str:
    fence = "`" * (max((len(run) for run in FENCE.findall(text)), default=2) + 1)
    return f"{fence}text\n{text}\n{fence}"


HEADER = ["", "criterion", "won", "tied", "lost", "won of the decided (95 %)", "p", "p, Holm"]
METHOD = (
    "A prompt is won by the better mean mark over the raters who marked both answers; overall takes the "
    "mean of the criteria. p is the exact two-sided sign test's, over the prompts that are no tie "
    "(of prompts in clusters that of sign flips by cluster, and the interval is by cluster too); Holm's "
    "correction is over the models (overall), and over models and criteria (the others, which describe)."
)


def tally_table(told: Mapping[str, Any]) -> str:
    """Return what `tally_json` told: verdicts, wins by criterion, mean marks, and the raters' agreement."""
    rows = [[model, *map(_number, own.values())] for model, own in told["mean_marks"].items()]
    if len(told["raters"]) > 1:
        rows.append(["agreement", *map(_number, told["krippendorff_alpha"].values())])
    won = grid(Table(HEADER, [_row(one) for one in told["outcomes"]]))
    marks = grid(Table(["mean mark", *CRITERIA], rows))
    return "\n\n".join([*told["verdicts"], won, METHOD, marks]) + "\n"


def verdict(one: Outcome) -> str:
    """Return an overall outcome as a sentence."""
    outcome = f"{counted(one.wins, 'prompt')} won, {one.losses} lost, {one.ties} tied"
    if one.share is None:
        return f"No difference between {one.model} and {one.against}: {outcome}."
    chance = f"p {show_p(one.p_holm)}"
    if one.p_holm >= ALPHA:
        return f"No evidence of a difference between {one.model} and {one.against}: {outcome} ({chance})."
    better, worse = (one.model, one.against) if one.wins > one.losses else (one.against, one.model)
    return f"{better} is rated better than {worse}: for {one.model} {outcome} ({chance})."


def tally_json(
    ratings: Sequence[Rating], models: Sequence[str], clusters: Mapping[int, str]
) -> dict[str, Any]:
    """Return the tally as plain JSON values; `clusters` are those of the prompts (from 1) that are not
    independent."""
    found = outcomes(ratings, models, clusters)
    return {
        "models": list(models),
        "raters": sorted({rating.rater for rating in ratings}),
        "prompts": len({rating.prompt for rating in ratings}),
        "clusters": len(set(clusters.values())) or None,
        "verdicts": [verdict(one) for one in found if one.criterion == OVERALL],
        "outcomes": [_outcome_json(one) for one in found],
        "mean_marks": {model: mean_marks(ratings, model) for model in models},
        "krippendorff_alpha": {criterion: agreement(ratings, criterion) for criterion in CRITERIA},
    }


def _outcome_json(outcome: Outcome) -> dict[str, object]:
    """An outcome as tally.json has it: `share` is (value, low, high)."""
    fields = asdict(outcome)
    if outcome.share is not None:
        fields["share"] = (outcome.share.value, outcome.share.low, outcome.share.high)
    return fields


def _row(one: Mapping[str, Any]) -> list[str]:
    counts = [str(one[name]) for name in ("wins", "ties", "losses")]
    chances = [p_cell(one[name]) for name in ("p", "p_holm")]
    return [f"{one['model']} − {one['against']}", one["criterion"], *counts, interval(one["share"]), *chances]


def _number(value: float | None) -> str:
    return NONE if value is None else f"{value:.2f}"
