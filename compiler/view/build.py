"""The payload of a dataset's page: `verify` reads and audits all rows, a sample of them is shown in full."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from tuneyard.compiler.problems import WARNINGS
from tuneyard.compiler.publish.compiled_entries import compiled_entries
from tuneyard.compiler.verify.audit import Audit
from tuneyard.compiler.verify.comparison import row_bar
from tuneyard.compiler.verify.dataset import LoadedRows, Settings, verify
from tuneyard.compiler.verify.report import histogram
from tuneyard.compiler.verify.trained import RecipeFile
from tuneyard.compiler.verify.verdict import Verdict
from tuneyard.compiler.view.page_rows import CUT_CODE, DROPPED, page_rows, rows_for_page
from tuneyard.compiler.view.payload import (
    CodeCount,
    LengthHistogram,
    NamedCount,
    Packing,
    PageRow,
    Totals,
    ViewPayload,
)
from tuneyard.compiler.view.scan import Scan, scan
from tuneyard.core.checkout import version
from tuneyard.core.datasets import Dataset, locate_dataset, read_registry
from tuneyard.core.errors import TuneyardError
from tuneyard.core.manifest import Manifest, read_manifests
from tuneyard.core.splits import apportioned
from tuneyard.core.training_run import names_in

if TYPE_CHECKING:
    from tuneyard.core.token_losses import TokenLossFile

BARS = 30
ROWS = 2000
SEED = 42
MOST_CHARACTERS = 60_000_000
"""Of the rows that wait for the page, which takes a third of them at most."""
TOKEN_KEYS = ("model_name_or_path", "template", "cutoff_len", "tool_format")
"""Settings without which the rows have no tokens."""
LOADER_ERRORS = ("E405", "E435")
"""Codes with which LLaMA-Factory cannot load a dataset."""
OWN_TEMPLATE = "the tokenizer's own chat template"
MESSAGES = {
    DROPPED: "LLaMA-Factory leaves the row out of the training",
    CUT_CODE: "tokens of the row are cut by cutoff_len",
}
Splits = dict[str, Dataset]


@dataclass(frozen=True, slots=True)
class ViewRequest:
    """A dataset and how its rows are read: settings of a recipe or of options, without a model no tokens."""

    name: str
    folder: Path
    settings: Settings
    recipe: RecipeFile | None = None
    rows: int = ROWS
    seed: int = SEED
    losses: "TokenLossFile | None" = None


class KeptRows:
    """Rows of the page in bounded memory: when they are too large together, every second of them goes.

    So the rows that stay are evenly spread, whatever their size.
    """

    def __init__(self, most_characters: int = MOST_CHARACTERS) -> None:
        self.kept: list[PageRow] = []
        self.added = 0
        self._stride = 1
        self._most_characters = most_characters
        self._characters = 0

    def add(self, page_row: PageRow) -> None:
        """Keep a row if it is one of every `stride` rows."""
        is_of_the_stride = self.added % self._stride == 0
        self.added += 1
        if not is_of_the_stride:
            return
        self.kept.append(page_row)
        self._characters += characters_of(page_row)
        while self._characters > self._most_characters and len(self.kept) > 1:
            self._stride *= 2
            self.kept = self.kept[::2]
            self._characters = sum(characters_of(row) for row in self.kept)


@dataclass(slots=True)
class _Collector:
    """Counts the file and makes the rows of the page, while LLaMA-Factory's rows exist."""

    request: ViewRequest
    dataset: Dataset
    splits: Splits
    scan: Scan = field(default_factory=Scan)
    rows: KeptRows = field(default_factory=KeptRows)
    is_done: bool = False

    def collect(self, loaded: LoadedRows | None, verdict: Verdict) -> None:
        """Fill `scan` and `rows`. `verify` calls it with the rows that LLaMA-Factory loaded."""
        numbers = None
        if loaded and loaded.numbers is not None:
            numbers = frozenset(loaded.numbers)
        places = frozenset(problem.place for problem in verdict.problems)
        self.scan = scan(self.dataset, numbers, places, self.splits)
        losses = self.request.losses
        chosen = rows_for_page(verdict, self.scan, loaded, self.request.rows, self.request.seed, losses)
        viewed = page_rows(self.dataset, chosen, self.scan, verdict, loaded, losses)
        with row_bar(f"tokens of {self.dataset.name}", chosen) as bar:
            for page_row in viewed:
                self.rows.add(page_row)
                bar.update(1)
        self.is_done = True


def build(request: ViewRequest) -> ViewPayload:
    """Everything that the page of a dataset shows.

    `RequestError` if the dataset is not registered or its file is missing. If the model or the template
    cannot be used, the rows have no tokens and `note` has the reason.
    """
    dataset = locate_dataset(request.name, request.folder)
    manifests = read_manifests(request.folder)
    splits = other_splits(dataset, request.folder, manifests)
    if request.recipe:
        splits |= _evaluation_sets(request, dataset)
    collector = _Collector(request, dataset, splits)
    settings = dict(request.settings)
    reasons = []
    try:
        verdict = verify(request.name, request.folder, settings, request.recipe, look=collector.collect)
    except TuneyardError as error:
        if not settings.keys() & TOKEN_KEYS:
            raise
        reasons.append(str(error))
        settings = {key: settings[key] for key in settings if key not in TOKEN_KEYS}
        collector = _Collector(request, dataset, splits)
        verdict = verify(request.name, request.folder, settings, None, look=collector.collect)
    if not collector.is_done:
        collector.collect(None, verdict)
    payload = _payload(request, dataset, verdict, collector, manifests)
    if payload.model:
        return payload
    payload.note = ". ".join(reasons or verdict.not_checked or _loader_errors(verdict))
    return payload


def _loader_errors(verdict: Verdict) -> list[str]:
    """Why LLaMA-Factory cannot load the dataset."""
    return [problem.message for problem in verdict.problems if problem.code in LOADER_ERRORS]


def _payload(
    request: ViewRequest,
    dataset: Dataset,
    verdict: Verdict,
    collector: _Collector,
    manifests: Mapping[str, Manifest],
) -> ViewPayload:
    counts = collector.scan
    payload = ViewPayload(
        dataset=request.name,
        file=_display_path(dataset.path),
        stage=verdict.stage,
        made_by=version()["version"],
        totals=Totals(
            rows=counts.rows,
            rows_on_page=len(collector.rows.kept),
            left_off_page=collector.rows.added - len(collector.rows.kept),
            seed=request.seed,
            dropped_rows=len(verdict.dropped),
        ),
        labels=list(counts.labels.most_common()),
        sources=list(counts.sources.most_common()) or mixture(manifests, request.name, counts.rows),
        leaks=[(split, len(rows)) for split, rows in counts.leaked.items()],
        duplicates=len(counts.duplicates),
        rows=collector.rows.kept,
    )
    audit = verdict.audit
    if audit:
        payload.model = Path(str(request.settings["model_name_or_path"])).name
        payload.template = str(request.settings.get("template") or OWN_TEMPLATE)
        payload.cutoff_len = verdict.cutoff
        _add_token_counts(payload, audit, verdict)
    payload.problems = _problems(verdict, counts, payload)
    return payload


def _add_token_counts(payload: ViewPayload, audit: Audit, verdict: Verdict) -> None:
    """Add the counts over the tokens of all rows."""
    totals = payload.totals
    totals.tokens = audit.uncut
    totals.learned = audit.learned
    totals.cut = audit.uncut - audit.seen
    is_packed_text = verdict.stage == "pt" and verdict.packing
    over = 0
    if not is_packed_text:
        over = sum(rows for length, rows in audit.lengths.items() if length > verdict.cutoff)
    payload.lengths = LengthHistogram(histogram(audit.lengths, BARS), verdict.cutoff, over)
    sequences = audit.packed
    if verdict.stage == "pt":
        sequences = audit.blocks if is_packed_text else audit.uncut // verdict.cutoff
    if sequences:
        payload.packing = Packing(sequences, audit.rows)


def _problems(verdict: Verdict, counts: Scan, payload: ViewPayload) -> list[CodeCount]:
    """The problems by code, over all rows: errors first, then by their number."""
    messages = {}
    for problem in reversed(verdict.problems):
        messages[problem.code] = "; ".join(filter(None, [problem.message, problem.hint]))
    codes_of_rows = {problem.code for problem in verdict.problems if problem.place in counts.row_of_place}
    problems = []
    for code, rows in verdict.counts.items():
        if code not in codes_of_rows:  # of the whole dataset: its count is none of rows
            rows = 0
        problems.append(CodeCount(code, messages.get(code, ""), rows))
    problems += [CodeCount(code, WARNINGS[code], rows) for code, rows in counts.counts.items()]
    problems.sort(key=lambda problem: (problem.code[0] != "E", problem.code))
    for code, rows in ((DROPPED, payload.totals.dropped_rows), (CUT_CODE, payload.lengths.over_cutoff)):
        if rows:
            problems.append(CodeCount(code, MESSAGES[code], rows))
    return problems


def other_splits(dataset: Dataset, folder: Path, manifests: Mapping[str, Manifest]) -> Splits:
    """The other splits of a compiled dataset, in the same form, by name."""
    splits: Splits = {}
    for name, manifest in manifests.items():
        entries = compiled_entries(name, manifest)
        if dataset.name not in entries:
            continue
        for pattern in _dataset_patterns(manifest.definition):
            form = re.compile(re.escape(pattern).replace(re.escape("{split}"), "(.+)"))
            if not form.fullmatch(dataset.name):
                continue
            for other in entries:
                match = form.fullmatch(other)
                if match and other != dataset.name:
                    _add_dataset(splits, match[1], other, folder)
    return splits


def _dataset_patterns(definition: Mapping[str, object]) -> list[str]:
    """Names of a spec's datasets with `{split}` in them."""
    outputs = definition.get("write")
    patterns = []
    if isinstance(outputs, list):
        for output in outputs:
            pattern = output.get("dataset") if isinstance(output, dict) else None
            if isinstance(pattern, str) and "{split}" in pattern:
                patterns.append(pattern)
    return patterns


def _evaluation_sets(request: ViewRequest, dataset: Dataset) -> Splits:
    """The datasets that a recipe evaluates on."""
    splits: Splits = {}
    for name in names_in(request.settings.get("eval_dataset")):
        if name != dataset.name and name in read_registry(request.folder):
            _add_dataset(splits, name, name, request.folder)
    return splits


def _add_dataset(splits: Splits, split: str, name: str, folder: Path) -> None:
    """Add a registered dataset whose file is there."""
    try:
        splits[split] = locate_dataset(name, folder)
    except TuneyardError:
        return


def mixture(manifests: Mapping[str, Manifest], name: str, rows: int) -> list[NamedCount]:
    """Rows by part of a compiled mixture, by its manifest; [] for others and if a part was not filled."""
    for compiled, manifest in manifests.items():
        mix = manifest.definition.get("mix")
        if name not in compiled_entries(compiled, manifest) or not isinstance(mix, dict):
            continue
        parts = mix.get("parts")
        total = mix.get("total")
        if isinstance(parts, dict) and isinstance(total, int) and total == rows:
            return list(apportioned(total, {part: parts[part].get("share", 0) for part in parts}).items())
    return []


def characters_of(page_row: PageRow) -> int:
    """Characters that a row brings to the page: its raw text, its turns and its pictures."""
    count = len(page_row.raw)
    for side in page_row.sides:
        for turn in side.turns:
            count += len(turn.text)
    for image in page_row.images:
        count += len(image)
    return count


def thinned(rows: Sequence[PageRow], most: int) -> list[PageRow]:
    """At most `most` of the rows, evenly spread over them."""
    if len(rows) <= most:
        return list(rows)
    return [rows[place * len(rows) // most] for place in range(most)]


def _display_path(path: Path) -> str:
    """A path within the working folder, otherwise its last name: the page may leave the machine."""
    try:
        return str(path.resolve().relative_to(Path.cwd()))
    except ValueError:
        return path.name
