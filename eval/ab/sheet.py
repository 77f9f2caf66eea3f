"""Rating sheets: blind CSV files that people mark in a spreadsheet, and the tally of the marks.

No cell of a sheet can run as a formula. The key names the model behind each row. Every id begins with the tag
of its sheet, so that no sheet is read with another's key, and with a letter, so that no spreadsheet reads it
as a date or a number.
"""

import csv
import io
import json
import random
import re
import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import cast

from tuneyard.core.errors import SHOWN, ContentError, RequestError, show_value
from tuneyard.core.files import read_object, text_sha256
from tuneyard.core.files.bounded_reading import open_regular
from tuneyard.core.language.message import _, counted, joined, ngettext, tr, translated
from tuneyard.core.language.number_format import NONE, percent, show_p
from tuneyard.core.records.rating_record import AnswerKey, OutcomeRecord, RatingKey, TallyRecord
from tuneyard.core.records.record import as_record, check_format, read_record
from tuneyard.core.text.markdown import markdown_table
from tuneyard.core.text.quoting import markdown_block, markdown_text
from tuneyard.core.training.metrics import ACCURACY
from tuneyard.eval.ab.ratings import CRITERIA, OVERALL, Outcome, Rating, equal_verdicts, mean_marks, outcomes
from tuneyard.eval.runs.tables import csv_rows

COLUMNS = ("id", "prompt", "reference", "answer", *CRITERIA, "comment")
# OWASP's list of what begins a formula, full-width forms included: East Asian spreadsheets take them too.
FORMULA = re.compile(r"[\s\"']*[=+\-@＝＋－＠]|\s*\t")
CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")
HEAD = 1 << 16  # bytes that show whether a file is text
LONGEST = 32_000  # letters in a cell; Excel holds 32,767
MARK = re.compile(r"[1-5](?:\.0+)?")


@dataclass(frozen=True, slots=True)
class Answered:
    """A prompt with every model's answer. `reference` is the data's answer, "" if it has none."""

    prompt: str
    reference: str
    answers: Mapping[str, str]
    cluster: str | None = None


@dataclass(frozen=True, slots=True)
class Key:
    """The prompt (from 1) and the model of each id of a sheet. The first model is the base.

    `clusters` has the prompts that belong to a cluster.
    """

    models: list[str]
    answers: Mapping[str, tuple[int, str]]
    clusters: Mapping[int, str]


def make_sheet(prompts: Sequence[Answered], seed: int) -> tuple[bytes, dict[str, AnswerKey]]:
    """The sheet as CSV (UTF-8 with a byte order mark), and the prompt and model of each id.

    The answers to a prompt are consecutive rows, in an order drawn with `seed`.
    """
    generator = random.Random(seed)
    drawn: list[tuple[int, Answered, str]] = []
    for number, answered in enumerate(prompts, 1):
        models = generator.sample(list(answered.answers), len(answered.answers))
        drawn += [(number, answered, model) for model in models]
    content = json.dumps([[answered.prompt, answered.answers[model]] for _unused, answered, model in drawn])
    tag = f"s{text_sha256(content)[:6]}"
    digits = len(str(len(drawn)))
    text = io.StringIO()
    writer = csv.writer(text, quoting=csv.QUOTE_ALL)
    writer.writerow(COLUMNS)
    answers: dict[str, AnswerKey] = {}
    for place, (number, answered, model) in enumerate(drawn, 1):
        name = f"{tag}-{place:0{digits}}"
        answers[name] = {"prompt": number, "model": model}
        if answered.cluster is not None:
            answers[name]["cluster"] = answered.cluster
        cells = map(safe_cell, (answered.prompt, answered.reference, answered.answers[model]))
        writer.writerow([name, *cells, *[""] * (len(CRITERIA) + 1)])
    return text.getvalue().encode("utf-8-sig"), answers


def safe_cell(text: str) -> str:
    """Make a text safe for a cell: an apostrophe before a text that a spreadsheet could run as a formula.

    Control characters are replaced. A text that is too long for a cell is cut.
    """
    text = CONTROL.sub("\N{REPLACEMENT CHARACTER}", text.replace("\r\n", "\n").replace("\r", "\n"))
    if FORMULA.match(text):
        text = f"'{text}"
    if len(text) <= LONGEST:
        return text
    return tr("{beginning}… (cut: the whole text is in answers.md)", beginning=text[:LONGEST])


def check_key(path: Path, key: RatingKey) -> None:
    """`RequestError` if `path` is the key of another sheet, whose copies need it."""
    if not path.exists():
        return
    before = read_record(path, RatingKey)
    changed = [name for name in ("seed", "models", "datasets") if before.get(name) != key.get(name)]
    if changed:
        raise RequestError(
            _(
                "{path}: the key of an earlier sheet, made with other values of {names}. "
                "Raters may still have that sheet: choose another --out, or give it up with "
                "--force",
                path=path,
                names=joined(changed, _(" and ")),
            )
        )


def check_unrated(path: Path) -> None:
    """`RequestError` if `path` is a sheet with marks or comments."""
    if not path.exists():
        return
    for _unused, row in read_rows(path):
        if any(row[name] for name in (*CRITERIA, "comment")):
            raise RequestError(
                _("{path} holds somebody's marks: move it away, or choose another --out", path=path)
            )


def read_key(path: Path) -> Key:
    """Read a sheet's key; `ContentError` if the file is something else."""
    content = read_object(path)
    check_format(content, path, RatingKey)
    try:
        key = as_record(content, path, RatingKey)
    except ContentError as error:
        raise ContentError(
            _("{path}: no key of a rating sheet: give its key.json with --key", path=path)
        ) from error
    answers: dict[str, tuple[int, str]] = {}
    clusters: dict[int, str] = {}
    for name, entry in key["answers"].items():
        answers[name] = (entry["prompt"], entry["model"])
        if "cluster" in entry:
            clusters[entry["prompt"]] = entry["cluster"]
    return Key(key["models"], answers, clusters)


def read_sheet(path: Path, key: Key, rater: str) -> list[Rating]:
    """Read a rater's marks. Rows without marks are left out.

    `ContentError` lists by row the marks that are not 1 to 5, the ids that the key lacks, and duplicate ids.
    It is also raised if there are no marks at all.
    """
    problems: list[str] = []
    ratings: list[Rating] = []
    seen: set[str] = set()
    for number, row in read_rows(path):
        name = row["id"]
        marks = {criterion: row[criterion] for criterion in CRITERIA if row[criterion]}
        of_row = list(_problems(name, marks, key, seen))
        place = _("{path} row {number}", path=path, number=number)
        problems += [_("{place}: {problem}", place=place, problem=problem) for problem in of_row]
        seen.add(name)
        if marks and not of_row:
            numbers = {criterion: int(mark[0]) for criterion, mark in marks.items()}
            ratings.append(Rating(rater, *key.answers[name], numbers))
    if problems:
        lines = problems[:SHOWN]
        if len(problems) > SHOWN:
            lines.append(_("… {number} more", number=len(problems) - SHOWN))
        raise ContentError(joined(lines, "\n"))
    if not ratings:
        raise ContentError(
            _("{path}: no marks in it: rate from 1 to 5 under {names}", path=path, names=joined(CRITERIA))
        )
    return ratings


def _problems(name: str, marks: Mapping[str, str], key: Key, seen: set[str]) -> Iterator[str]:
    if name not in key.answers:
        yield _("id {id} is not in the key: is it the key of another sheet?", id=show_value(name))
    if name in seen:
        yield _("id {id} stands twice", id=show_value(name))
    for criterion, mark in marks.items():
        if not MARK.fullmatch(mark):
            yield _(
                "{criterion}: found {mark}, expected 1, 2, 3, 4, 5 or nothing",
                criterion=criterion,
                mark=show_value(mark),
            )


def read_rows(path: Path) -> Iterator[tuple[int, dict[str, str]]]:
    """Yield (row number as in a spreadsheet, cells by column) of every row that is not empty.

    The encoding does not matter: callers use only ids and marks, which are ASCII.
    """
    with open_regular(path) as file:
        head = file.read(HEAD)
    if head.startswith(b"PK") or b"\0" in head:
        raise ContentError(_("{path}: not CSV: save the sheet as CSV (UTF-8)", path=path))
    rows = csv_rows(path, "replace", longest_cell=4 * LONGEST)
    _unused, header = next(rows, (1, []))
    names = [name.strip().lower() for name in header]
    missing = [name for name in ("id", *CRITERIA) if name not in names]
    if missing:
        raise ContentError(
            _(
                "{path} row 1: no column {names}: keep the heading as it was",
                path=path,
                names=joined(missing),
            )
        )
    for number, (_unused, cells) in enumerate(rows, 2):
        plain = [unicodedata.normalize("NFKC", cell).strip() for cell in cells]
        if any(plain):
            yield number, dict.fromkeys((*names, "comment"), "") | dict(zip(names, plain, strict=False))


def side_by_side(prompts: Sequence[Answered]) -> str:
    """Every prompt with its reference answer and each model's answer, as Markdown.

    The texts are in fenced blocks, so that nothing in them is Markdown or HTML.
    """
    parts = [f"# {tr('Answers side by side')}", tr("This page names the models: raters get sheet.csv alone.")]
    for number, answered in enumerate(prompts, 1):
        texts = {tr("Prompt"): answered.prompt}
        if answered.reference:
            texts[tr("Reference")] = answered.reference
        texts |= answered.answers
        parts.append(f"## {number}")
        for name, text in texts.items():
            parts += [f"**{markdown_text(name)}**", markdown_block(text, "text")]
    return "\n\n".join(parts) + "\n"


HEADER = (_("criterion"), _("won"), _("tied"), _("lost"), _("won of the decided (95 %)"), _("p"))
METHOD = _(
    "A prompt is won by the better mean mark over the raters who marked both answers; overall takes the "
    "mean of the criteria and decides. A cluster of prompts counts as one, and is won by the better mean of "
    "its prompts. p is the exact two-sided sign test's, over those that are no tie. The criteria describe."
)


def tally_table(tally: TallyRecord) -> str:
    """The tally of `tally_json` as Markdown: verdicts, wins by criterion, mean marks, equal verdicts."""
    rows = [[model, *map(_number, means.values())] for model, means in tally["mean_marks"].items()]
    wins = markdown_table(["", *map(tr, HEADER)], [_row(outcome) for outcome in tally["outcomes"]])
    marks = markdown_table([tr("mean mark"), *CRITERIA], rows)
    parts = [*map(markdown_text, map(translated, tally["verdicts"])), wins, tr(METHOD), marks]
    if tally["equal_verdicts"] is not None:
        share = percent(tally["equal_verdicts"])
        parts.append(tr("Two raters gave the same verdict (overall) in {share}.", share=share))
    return "\n\n".join(parts) + "\n"


def verdict(one: Outcome, *, by_cluster: bool) -> str:
    """An overall outcome as a sentence. Prompts are won and lost, or clusters of them."""
    from tuneyard.eval.statistics.family import ALPHA

    units = counted(one.wins, "prompt", "prompts")
    if by_cluster:
        units = ngettext("{number:,} cluster", "{number:,} clusters", one.wins, number=one.wins)
    outcome = _("{units} won, {losses} lost, {ties} tied", units=units, losses=one.losses, ties=one.ties)
    if one.share is None or one.p is None:
        return _(
            "No difference between {model} and {other}: {outcome}.",
            model=one.model,
            other=one.against,
            outcome=outcome,
        )
    if one.p >= ALPHA:
        return _(
            "No evidence of a difference between {model} and {other}: {outcome} (p {p}).",
            model=one.model,
            other=one.against,
            outcome=outcome,
            p=show_p(one.p),
        )
    better, worse = one.model, one.against
    if one.wins <= one.losses:
        better, worse = one.against, one.model
    return _(
        "{better} is rated better than {worse}: for {model} {outcome} (p {p}).",
        better=better,
        worse=worse,
        model=one.model,
        outcome=outcome,
        p=show_p(one.p),
    )


def tally_json(ratings: Sequence[Rating], models: Sequence[str], clusters: Mapping[int, str]) -> TallyRecord:
    """The tally as plain JSON values; `clusters` has the prompts (from 1) that belong to a cluster."""
    compared = outcomes(ratings, models, clusters)
    return {
        "models": list(models),
        "raters": sorted({rating.rater for rating in ratings}),
        "prompts": len({rating.prompt for rating in ratings}),
        "clusters": len(set(clusters.values())) or None,
        "verdicts": [
            verdict(outcome, by_cluster=bool(clusters))
            for outcome in compared
            if outcome.criterion == OVERALL
        ],
        "outcomes": [cast(OutcomeRecord, asdict(outcome)) for outcome in compared],
        "mean_marks": {model: mean_marks(ratings, model) for model in models},
        "equal_verdicts": equal_verdicts(ratings, models),
    }


def _row(outcome: OutcomeRecord) -> list[str]:
    pair = f"{outcome['model']} − {outcome['against']}"
    counts = [str(outcome["wins"]), str(outcome["ties"]), str(outcome["losses"])]
    share, p = NONE, NONE
    if outcome["share"] is not None:
        share = ACCURACY.interval_text(outcome["share"])
    if outcome["p"] is not None:
        p = show_p(outcome["p"], equals="")
    return [pair, outcome["criterion"], *counts, share, p]


def _number(value: float | None) -> str:
    if value is None:
        return NONE
    return f"{value:.2f}"
