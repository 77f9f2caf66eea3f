"""Runs the lints: those of rows on each batch while a file is read, those of splits on all kept rows."""

from array import array
from collections.abc import Iterable, Mapping
from functools import partial, reduce
from operator import add

from tuneyard.compiler.check.text_columns import TextColumns
from tuneyard.compiler.lint import BatchLint, RowTexts, SplitLint, Splits, TextBatch, TextLint, lints
from tuneyard.compiler.lint.fingerprints import Fingerprints
from tuneyard.compiler.lint.matching import matches
from tuneyard.compiler.lint.text_keys import (
    cluster_key,
    digest,
    joined_columns,
    keys_of_ids,
    keys_of_texts,
    plain_texts,
    short_keys_of_texts,
    written,
)
from tuneyard.compiler.rows import Batch
from tuneyard.compiler.rows.problems import Problems
from tuneyard.compiler.spec.column_types import KTO_TAG
from tuneyard.compiler.spec.model import Spec
from tuneyard.core.errors import Problem, show_value
from tuneyard.core.errors.problem_codes import ProblemCode
from tuneyard.core.files import JsonObject
from tuneyard.core.language.message import _
from tuneyard.core.plugins import guarded


class RowLints:
    """Runs the lints of rows on every kept row of a file once, batch by batch."""

    def __init__(self, spec: Spec, problems: Problems) -> None:
        self.spec = spec
        self.problems = problems
        self.texts = TextColumns(spec)
        self.label_columns = [column.name for column in spec.columns if column.type.compared == KTO_TAG]
        if self.texts.label_is_learned:
            self.label_columns.insert(0, "label")
        placeholders = [column.type.placeholder() for column in spec.columns]
        self.placeholders = list(filter(None, placeholders))
        self.text_lints, self.batch_lints = text_lints(), batch_lints()
        self.signs = frozenset().union(*(lint.signs for lint in self.text_lints))

    def check(self, batch: Batch, fingerprints: Fingerprints, *, has_ids: bool) -> None:
        """Warn of the rows of a batch, and add their fingerprints.

        `has_ids`: the ids come from the file, so that they should differ.
        """
        texts = self.texts.of(batch)
        plain: dict[str, list[bytes]] = {}
        signs: set[bytes] = set()
        for name, column in texts.items():
            plain[name], signs_of_column = plain_texts(column, self.signs)
            signs |= signs_of_column
        lengths = array("I", reduce(partial(map, add), (map(len, column) for column in texts.values())))
        self._warn(TextBatch(batch, texts, plain, lengths, self.texts.may_be_blank), signs)
        prompts = [plain[name] for name in self.texts.prompt_columns]
        columns: dict[str, Iterable[int]] = {"lengths": lengths}
        if self.spec.group:
            groups = plain.get(self.spec.group)
            if groups is None:
                groups = [repr(value).encode() for value in batch.columns[self.spec.group]]
            columns["groups"] = keys_of_texts(groups)
        answers = self._answers(batch, plain)
        columns["prompts"] = keys_of_texts(joined_columns(prompts, len(batch)))
        columns["answers"] = short_keys_of_texts(joined_columns(answers, len(batch)))
        if "idx" in batch.columns and not self.spec.share:
            columns["ids"] = keys_of_ids(batch.columns["idx"] if has_ids else [None] * len(batch))
        split = self.spec.split
        if split and split.group:
            columns["clusters"] = map(cluster_key, batch.columns[split.group])
        if split and split.by_hash:  # by what is the same in every run
            values = batch.columns[split.group] if split.group else zip(*prompts, strict=True)
            columns["stable"] = [int.from_bytes(digest(value)) for value in values]
        fingerprints.add(batch.prefix, batch.lines, columns)
        if self.spec.labels and not self.spec.share:
            fingerprints.add_values("labels", batch.columns["label"])
        if split and split.stratify:
            fingerprints.add_values("classes", batch.columns[split.stratify])
        if self.spec.near:
            fingerprints.texts += map(
                "\n".join, zip(*(texts[name] for name in self.texts.prompt_columns), strict=True)
            )

    def _answers(self, batch: Batch, plain: Mapping[str, list[bytes]]) -> list[list[bytes]]:
        """The columns that are the answer of a row: texts, the label, the KTO tag."""
        answers = [plain[name] for name in self.texts.completion_columns]
        for name in self.label_columns:
            text_by_value = {value: written(value) for value in set(batch.columns[name])}
            answers.append(list(map(text_by_value.__getitem__, batch.columns[name])))
        return answers

    def _warn(self, batch: TextBatch, signs: set[bytes]) -> None:
        """Warn of the rows of a batch whose texts may have these signs."""
        for batch_lint in self.batch_lints:
            with guarded(batch_lint.plugin):
                for number, field in batch_lint.find(batch):
                    self._add(batch_lint.codes[0], batch, number, field=field)
        rows: list[RowTexts] = []
        for text_lint in self.text_lints:
            if text_lint.signs and signs.isdisjoint(text_lint.signs):
                continue
            rows = rows or self._rows(batch)
            with guarded(text_lint.plugin):
                for number, row in enumerate(rows):
                    text = text_lint.find(row)
                    if text:
                        self._add(text_lint.codes[0], batch, number, text=show_value(text))

    def _rows(self, batch: TextBatch) -> list[RowTexts]:
        """The texts of each row."""
        texts_of_rows = list(zip(*batch.texts.values(), strict=True))
        answers = [batch.texts[name] for name in self.texts.completion_columns]
        answers_of_rows = list(zip(*answers, strict=True)) if answers else [()] * len(texts_of_rows)
        return [
            RowTexts(texts, answers_of_row, self.placeholders)
            for texts, answers_of_row in zip(texts_of_rows, answers_of_rows, strict=True)
        ]

    def _add(self, code: ProblemCode, batch: TextBatch, number: int, field: str = "", **values: str) -> None:
        self.problems.warn(Problem(code, batch.rows.location(number), code.message(**values), field))


def text_lints() -> list[TextLint]:
    """The lints of one row's texts."""
    return [lint for lint in lints() if isinstance(lint, TextLint)]


def batch_lints() -> list[BatchLint]:
    """The lints of a batch's columns."""
    return [lint for lint in lints() if isinstance(lint, BatchLint)]


def lint_splits(spec: Spec, fingerprints: Mapping[str, Fingerprints], problems: Problems) -> JsonObject:
    """Run the lints that compare rows, within and between splits. Returns the manifest's `fit`.

    The ids of the rows are deleted once no further lint compares them: 8 bytes a row less.
    """
    rows_by_split = {split: rows for split, rows in fingerprints.items() if rows.rows}
    summaries = {split: rows.summary() for split, rows in rows_by_split.items()}
    splits = Splits(spec, rows_by_split, summaries)
    lints_of_splits = [lint for lint in lints() if isinstance(lint, SplitLint)]
    for number, lint in enumerate(lints_of_splits):
        if not any("ids" in later.columns for later in lints_of_splits[number:]):
            for rows in rows_by_split.values():
                rows.forget("ids")
        with guarded(lint.plugin):
            for problem in lint.find(splits):
                if problem.code not in lint.codes:
                    raise ValueError(
                        _(
                            "the lint {name} found {code}, which it does not declare",
                            name=lint.name,
                            code=problem.code,
                        )
                    )
                problems.warn(problem)
    report: JsonObject = dict(summaries)
    if spec.group:
        for training, name, others in splits.pairs():
            shared_groups = matches(training.values("groups"), others.values("groups"))
            shared_rows = len({row for _unused, row in shared_groups})
            report[
                _(
                    "{column} shared by {first_split} and {second_split}",
                    column=spec.group,
                    first_split=splits.first,
                    second_split=name,
                )
            ] = shared_rows
    return report
