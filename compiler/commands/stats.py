"""Counts over a dataset: lengths in tokens or characters, labels, languages, duplicates; and their plot."""

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import chain, islice
from pathlib import Path

from tuneyard.compiler.check.filters import is_in_language
from tuneyard.compiler.commands.dataset_reader import MOST_LABELS, few, stored_examples
from tuneyard.compiler.lint.fingerprints import quantiles
from tuneyard.compiler.tokens import load_tokenizer
from tuneyard.core.errors import ContentError, RequestError
from tuneyard.core.language import tr, tr_counted

BATCH = 256
NAMED = 3  # duplicates for people, of the first that --json names
KEPT = 20
LANGUAGES = {"zh": "Chinese", "en": "Latin letters without accents"}
HEADING = "{name}: {examples}, {duplicates} of them duplicates"
LISTED = "{title}: {values}"
Measure = Callable[[list[str]], list[int]]


@dataclass(slots=True)
class Stats:
    """Counts over examples. `lengths` are in `unit`s. `places` has (first duplicates, their originals)."""

    name: str
    unit: str
    examples: int = 0
    lengths: dict[str, Counter[int]] = field(default_factory=dict)
    labels: Counter[str] = field(default_factory=Counter)
    languages: Counter[str] = field(default_factory=Counter)
    duplicates: int = 0
    conflicts: int = 0
    places: list[tuple[str, str]] = field(default_factory=list)

    def as_json(self) -> dict[str, object]:
        """The counts for `--json`; lengths as their quantiles (nearest rank)."""
        return {
            "dataset": self.name,
            "examples": self.examples,
            "unit": self.unit,
            "lengths": {title: quantiles(counts) for title, counts in self.lengths.items()},
            "labels": dict(self.labels.most_common()),
            "languages": dict(self.languages.most_common()),
            "duplicates": self.duplicates,
            "duplicates_first": [{"place": place, "same_as": before} for place, before in self.places],
            "same_prompt_other_answer": self.conflicts,
        }

    def lines(self) -> Iterator[str]:
        """Yield the lines for people."""
        examples = tr_counted(self.examples, "example")
        yield tr(HEADING, name=self.name, examples=examples, duplicates=self.duplicates)
        if self.places:
            places = self.places[:NAMED]
            files = {place.rpartition(":")[0] for place in chain.from_iterable(places)} - {""}
            pairs = []
            for place, before in places:
                if len(files) == 1:
                    place = tr("line {line}", line=place.rpartition(":")[2])
                    before = tr("line {line}", line=before.rpartition(":")[2])
                pairs.append(tr("{place} (as {before})", place=place, before=before))
            left = self.duplicates - NAMED
            if left > 0:
                pairs.append(tr("… and {left} more", left=left))
            yield tr("duplicates: {places}", places=tr(", ").join(pairs))
        yield tr("same prompt, other answer: {count}", count=self.conflicts)
        for title, counts in self.lengths.items():
            values = [f"{tr(name)} {value}" for name, value in quantiles(counts).items()]
            values.append(f"{tr('total')} {sum(length * rows for length, rows in counts.items())}")
            lengths = tr("{unit} of {what}", unit=tr(self.unit), what=tr(title))
            yield tr(LISTED, title=lengths, values=tr(", ").join(values))
        for title, counter in (("labels", self.labels), ("languages by script", self.languages)):
            shares = []
            for name, count in counter.most_common():
                label = name
                if counter is self.languages:
                    label = tr(name)
                shares.append(f"{label} {count} ({count / self.examples:.1%})")
            if shares:
                yield tr(LISTED, title=tr(title), values=tr(", ").join(shares))


def stats(name: str, folder: Path, model: Path | None) -> Stats:
    """Count lengths, labels and duplicates in a dataset or a file of records.

    Lengths are in tokens of `model`'s tokenizer, or in characters without a model. Memory holds two hashes
    and a place for each example. `ContentError` if there are no examples, `RequestError` without a tokenizer.
    """
    measure: Measure = _characters
    unit = "characters"
    if model:
        measure, unit = _tokens(model), "tokens"
    result = Stats(name, unit)
    result.lengths = {"prompts": Counter(), "answers": Counter()}
    answers: dict[int, int] = {}
    rows: dict[tuple[int, int], str] = {}
    examples = stored_examples(name, folder)
    while True:
        batch = list(islice(examples, BATCH))
        if not batch:
            break
        result.lengths["prompts"].update(measure([example.prompt for example in batch]))
        result.lengths["answers"].update(measure([example.answer for example in batch]))
        for example in batch:
            key, content = example.key, example.content
            result.examples += 1
            first_place = rows.get((key, content))
            if first_place is None:
                rows[key, content] = example.place
                result.conflicts += answers.setdefault(key, content) != content
            else:
                result.duplicates += 1
                if len(result.places) < KEPT:
                    result.places.append((example.place, first_place))
            text = f"{example.prompt}\n{example.answer}"
            result.languages[_language(text)] += 1
            if len(result.labels) <= MOST_LABELS:
                result.labels[example.label] += 1
    if not result.examples:
        raise ContentError(f"{name}: no examples")
    result.labels = few(result.labels)
    return result


def _characters(texts: list[str]) -> list[int]:
    """The length of each text."""
    return list(map(len, texts))


def _language(text: str) -> str:
    """The language of a text in words, by its script."""
    for name, title in LANGUAGES.items():
        if is_in_language(name, text):
            return title
    return "other"


def _tokens(model: Path) -> Measure:
    """A function that counts the tokens of texts, without special tokens."""
    tokenizer = load_tokenizer(model, "--model")
    return lambda texts: [len(each.ids) for each in tokenizer.encode_batch(texts, add_special_tokens=False)]


def plot(result: Stats, path: Path) -> None:
    """Draw the lengths of prompts and answers as two histograms. The suffix decides the format."""
    from tuneyard.core.drawing import picture, plotting

    path = path if path.suffix else path.with_suffix(".png")
    try:
        with plotting(), picture((9, 3.5), path) as figure:
            heading = tr(
                "{name}: {examples}", name=result.name, examples=tr_counted(result.examples, "example")
            )
            figure.suptitle(heading)
            for axes, (title, counts) in zip(figure.subplots(1, 2), result.lengths.items(), strict=True):
                axes.hist(list(counts), bins=40, weights=list(counts.values()))
                label = tr("{unit} of {what}", unit=tr(result.unit), what=tr(title))
                axes.set(xlabel=label, ylabel=tr("examples"))
    except ValueError as error:
        raise RequestError(f"--plot {path}: {error}") from error
