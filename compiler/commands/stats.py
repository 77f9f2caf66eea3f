"""What a dataset holds: lengths in tokens or characters, labels, languages, duplicates; drawn on request."""

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path

from tuneyard.compiler.check.filters import is_in_language
from tuneyard.compiler.commands.dataset_reader import MOST_LABELS, few, stored_examples
from tuneyard.compiler.lint.fingerprints import quantiles
from tuneyard.compiler.tokens import load_tokenizer
from tuneyard.core.errors import ContentError, RequestError, counted
from tuneyard.core.language import tr, tr_counted

BATCH = 256
NAMED = 3  # duplicates for people, of the first that --json names
KEPT = 20
LANGUAGES = {"zh": "Chinese", "en": "Latin letters without accents"}
Measure = Callable[[list[str]], list[int]]


@dataclass(slots=True)
class Stats:
    """Counts over examples: `lengths` in `unit`s, `places` of first duplicates and of what they repeat."""

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
        """Return all of it for `--json`; lengths as their quantiles (nearest rank)."""
        return {
            "dataset": self.name,
            "examples": self.examples,
            "unit": self.unit,
            "lengths": {what: quantiles(counts) for what, counts in self.lengths.items()},
            "labels": dict(self.labels.most_common()),
            "languages": dict(self.languages.most_common()),
            "duplicates": self.duplicates,
            "duplicates_first": [{"place": place, "same_as": before} for place, before in self.places],
            "same_prompt_other_answer": self.conflicts,
        }

    def lines(self) -> Iterator[str]:
        """Yield the lines for people."""
        yield f"{self.name}: {counted(self.examples, 'example')}, {self.duplicates} of them duplicates"
        if self.places:
            shown = ", ".join(f"{place} (as {before})" for place, before in _lines_of(self.places[:NAMED]))
            left = self.duplicates - NAMED
            yield f"duplicates: {shown}{f', … and {left} more' if left > 0 else ''}"
        yield f"same prompt, other answer: {self.conflicts}"
        for what, counts in self.lengths.items():
            found = ", ".join(f"{name} {value}" for name, value in quantiles(counts).items())
            yield f"{self.unit} of {what}: {found}, total {sum(n * times for n, times in counts.items())}"
        for what, counter in (("labels", self.labels), ("languages by script", self.languages)):
            shares = [f"{name} {n} ({n / self.examples:.1%})" for name, n in counter.most_common()]
            yield from [f"{what}: {', '.join(shares)}"] if shares else []


def stats(name: str, folder: Path, model: Path | None) -> Stats:
    """Count over a dataset or a file of records; lengths in tokens of `model`'s tokenizer, else characters.

    Memory holds two hashes and a place an example. `ContentError` where there are no examples,
    `RequestError` where there is no tokenizer.
    """
    measure = _tokens(model) if model else (lambda texts: list(map(len, texts)))
    result = Stats(name, "tokens" if model else "characters")
    result.lengths = {"prompts": Counter(), "answers": Counter()}
    answers: dict[int, int] = {}
    rows: dict[tuple[int, int], str] = {}
    found = stored_examples(name, folder)
    while batch := list(islice(found, BATCH)):
        result.lengths["prompts"].update(measure([example.prompt for example in batch]))
        result.lengths["answers"].update(measure([example.answer for example in batch]))
        for example in batch:
            key, content, known = example.key, example.content, len(rows)
            before = rows.setdefault((key, content), example.place)
            is_new = len(rows) > known
            result.examples += 1
            result.duplicates += not is_new
            result.places += [(example.place, before)] if not is_new and len(result.places) < KEPT else []
            result.conflicts += is_new and answers.setdefault(key, content) != content
            text = f"{example.prompt}\n{example.answer}"
            result.languages[_language(text)] += 1
            if len(result.labels) <= MOST_LABELS:
                result.labels[example.label] += 1
    if not result.examples:
        raise ContentError(f"{name}: no examples")
    result.labels = few(result.labels)
    return result


def _language(text: str) -> str:
    """The language of a text in words, by its script."""
    for name, title in LANGUAGES.items():
        if is_in_language(name, text):
            return title
    return "other"


def _lines_of(places: Sequence[tuple[str, str]]) -> list[tuple[str, str]]:
    """Return `file:12` as `line 12` where all are of one file of lines, else the places as they stand."""
    if len({place.rpartition(":")[0] for pair in places for place in pair} | {""}) != 2:
        return list(places)
    return [(f"line {one.rpartition(':')[2]}", f"line {other.rpartition(':')[2]}") for one, other in places]


def _tokens(model: Path) -> Measure:
    """Return what counts tokens by the tokenizer of a model folder, without special tokens."""
    tokenizer = load_tokenizer(model, "--model")
    return lambda texts: [len(each.ids) for each in tokenizer.encode_batch(texts, add_special_tokens=False)]


def plot(found: Stats, path: Path) -> None:
    """Draw how long prompts and answers are, as two histograms; the suffix decides the format."""
    from tuneyard.core.drawing import picture, plot_texts

    path = path if path.suffix else path.with_suffix(".png")
    try:
        with plot_texts([found.name]) as face, picture((9, 3.5), path, face) as figure:
            title = tr("{name}: {examples}", name=found.name, examples=tr_counted(found.examples, "example"))
            figure.suptitle(face.show(title))
            for axes, (what, counts) in zip(figure.subplots(1, 2), found.lengths.items(), strict=True):
                axes.hist(list(counts), bins=40, weights=list(counts.values()))
                label = tr("{unit} of {what}", unit=tr(found.unit), what=tr(what))
                axes.set(xlabel=label, ylabel=tr("examples"))
    except ValueError as error:
        raise RequestError(f"--plot {path}: {error}") from error
