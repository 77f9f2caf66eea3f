"""Counts over a dataset: lengths in tokens or characters, labels, languages, duplicates; and their plot."""

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tuneyard.compiler.check.filters import language_of
from tuneyard.compiler.lint.example_keys import keys_of_examples
from tuneyard.compiler.lint.fingerprints import Fingerprints, quantiles
from tuneyard.compiler.read.dataset_reader import MOST_LABELS, few, label_of, stored_examples
from tuneyard.compiler.rows import Location
from tuneyard.core.errors import ContentError, RequestError, need
from tuneyard.core.files import JsonObject, read_object
from tuneyard.core.language.message import _, counted, marked, tr

NAMED = 3  # duplicates for people, of the first that --json names
KEPT = 20
LANGUAGES = {"zh": marked("Chinese"), "en": marked("Latin letters without accents"), "": marked("other")}
HEADING = marked("{name}: {examples}, {duplicates} of them duplicates")
LISTED = marked("{title}: {values}")
TOKENIZER = "tokenizer.json"
Measure = Callable[[list[str]], list[int]]


@dataclass
class Stats:
    """Counts over examples. `lengths` are in `unit`s. `locations` has (first duplicates, their originals)."""

    name: str
    unit: str
    examples: int
    lengths: dict[str, Counter[int]]
    labels: Counter[str]
    languages: Counter[str]
    duplicates: int
    conflicts: int
    locations: list[tuple[Location, Location]]

    def as_json(self) -> JsonObject:
        """The counts for `--json`; lengths as their quantiles (nearest rank)."""
        return {
            "dataset": self.name,
            "examples": self.examples,
            "unit": self.unit,
            "lengths": {title: quantiles(counts) for title, counts in self.lengths.items()},
            "labels": dict(self.labels.most_common()),
            "languages": dict(self.languages.most_common()),
            "duplicates": self.duplicates,
            "duplicates_first": [
                {"place": location, "same_as": before} for location, before in self.locations
            ],
            "same_prompt_other_answer": self.conflicts,
        }

    def lines(self) -> Iterator[str]:
        """Yield the lines for people."""
        examples = counted(self.examples, "example", "examples")
        yield tr(HEADING, name=self.name, examples=examples, duplicates=self.duplicates)
        if self.locations:
            pairs = []
            for location, before in self.locations[:NAMED]:
                pairs.append(tr("{place} (as {before})", place=location, before=before))
            yield tr("first duplicates: {places}", places=tr(", ").join(pairs))
        yield tr("same prompt, other answer: {count}", count=self.conflicts)
        for title, counts in self.lengths.items():
            values = [f"{tr(name)} {value}" for name, value in quantiles(counts).items()]
            values.append(f"{tr('total')} {sum(length * rows for length, rows in counts.items())}")
            lengths = tr("{unit} of {what}", unit=tr(self.unit), what=tr(title))
            yield tr(LISTED, title=lengths, values=tr(", ").join(values))
        for title, counter in (
            (marked("labels"), self.labels),
            (marked("languages by script"), self.languages),
        ):
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

    Lengths are in tokens of `model`'s tokenizer, or in characters without a model. Memory holds some hundred
    examples and, while duplicates are looked for, their keys. `ContentError` if there are no examples,
    `RequestError` without a tokenizer.
    """
    measure: Measure = _characters
    unit = marked("characters")
    if model:
        measure, unit = _tokens(model), marked("tokens")
    lengths: dict[str, Counter[int]] = {marked("prompts"): Counter(), marked("answers"): Counter()}
    labels, languages = Counter[str](), Counter[str]()
    fingerprints = Fingerprints()
    for examples in stored_examples(name, folder):
        prompts, answers = examples.prompts(), examples.answers()
        lengths["prompts"].update(measure(prompts))
        lengths["answers"].update(measure(answers))
        for prompt, answer in zip(prompts, answers, strict=True):
            languages[LANGUAGES[language_of(f"{prompt}\n{answer}")]] += 1
        fingerprints.add(examples.prefix, examples.lines, keys_of_examples(examples.examples))
        if len(labels) <= MOST_LABELS:
            labels.update(map(label_of, examples.examples))
    if not fingerprints.rows:
        raise ContentError(_("{path}: no examples; name a dataset or a file that has some", path=name))
    duplicates, conflicts = fingerprints.repeats()
    return Stats(
        name=name,
        unit=unit,
        examples=fingerprints.rows,
        lengths=lengths,
        labels=few(labels),
        languages=languages,
        duplicates=len(duplicates),
        conflicts=len(conflicts),
        locations=[
            (fingerprints.location(row), fingerprints.location(first)) for row, first in duplicates[:KEPT]
        ],
    )


def _characters(texts: list[str]) -> list[int]:
    """The length of each text."""
    return list(map(len, texts))


def _tokens(model: Path) -> Measure:
    """A function that counts the tokens of texts, without special tokens."""
    tokenizer = _load_tokenizer(model)

    def count(texts: list[str]) -> list[int]:
        return [len(each.ids) for each in tokenizer.encode_batch(texts, add_special_tokens=False)]

    return count


def _load_tokenizer(folder: Path) -> Any:
    """A folder's fast tokenizer, by the `tokenizers` package alone: no torch, no transformers."""
    path = folder / TOKENIZER
    if not path.is_file():
        raise RequestError(
            _(
                "--model {path}: no {names} there; name a local folder with a fast tokenizer",
                path=folder,
                names=TOKENIZER,
            )
        )
    need("tokenizers")
    from tokenizers import Tokenizer

    if not isinstance(read_object(path).get("model"), dict):
        raise ContentError(
            _("{path}: no `model` in it, so it is no tokenizer; get the file again", path=path)
        )
    tokenizer: Any = Tokenizer.from_file(str(path))
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return tokenizer
