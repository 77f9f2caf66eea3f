"""Examples with their answers before a question (`--shots N`), from the training split of a dataset."""

import json
import random
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from tuneyard.core.datasets import Dataset, find_dataset, read_records, read_registry, registry_folder
from tuneyard.core.datasets.trained_examples import fingerprints_of
from tuneyard.core.errors import RequestError
from tuneyard.core.files import text_sha256
from tuneyard.core.language.message import _, relative
from tuneyard.core.llamafactory.prompt import Messages, PromptAndAnswer, prompt_and_answer, refuse_media
from tuneyard.eval.data.dataset import EvalDataset, Shots
from tuneyard.eval.data.scalar_answers import with_text_answers

SEED = 42
DRAWN = 1000  # rows drawn to choose from: a training split may have hundreds of thousands
SPLIT = re.compile(r"(eval|test|dev|validation|valid|val)(?=[^a-z]*$)")
Drawn = tuple[int, PromptAndAnswer]
"""A row of the training split and its example."""


def with_shots(
    datasets: Sequence[EvalDataset],
    count: int,
    sources: Sequence[str],
    labels: Mapping[str, Sequence[str]] | None = None,
    *,
    folder: Path | None = None,
) -> list[EvalDataset]:
    """Add `count` examples of its training split to each dataset. 0 adds none.

    `sources` are the values of --shots-from, `labels` the answers that an example may have, by dataset,
    `folder` that of --dataset-dir. The draw is seeded and never takes an evaluated row. The examples' answers
    alternate as long as they last.
    `RequestError` if no training split is known or it has too few examples.
    """
    if not count:
        if sources:
            raise RequestError(_("--shots-from names the source of examples: give --shots N with it"))
        return list(datasets)
    source_of = _sources_by_dataset(sources, [dataset.name for dataset in datasets])
    evaluated: set[int] = set()
    for dataset in datasets:
        evaluated.update(fingerprints_of(dataset.conversations).tolist())
        evaluated.update(dataset.origin.fingerprints.tolist())  # the training split may word them otherwise
    with_examples = []
    for dataset in datasets:
        split = _training_split(dataset.name, source_of.get(dataset.name) or source_of.get(""), folder)
        allowed = labels[dataset.name] if labels else None
        records = read_records(split.path)
        if not split.entry:
            records = [with_text_answers(record) for record in records]
        drawn_rows = random.Random(SEED).sample(range(len(records)), min(DRAWN, len(records)))
        fitting: list[Drawn] = []
        file = relative(split.path)
        for row in drawn_rows:
            place = f"{file}: record {row + 1}"
            refuse_media(records[row], split.entry, place)
            example = prompt_and_answer(records[row], split.entry, place)
            fits = bool(example.answer.strip()) if allowed is None else example.answer in allowed
            if fits and example.role == "assistant" and fingerprints_of([example])[0] not in evaluated:
                fitting.append((row, example))
        if len(fitting) < count:
            raise RequestError(
                _(
                    "--shots {count}: {path} has {number} fitting examples that are not evaluated among "
                    "{drawn:,} drawn; name its training split with --shots-from",
                    count=count,
                    path=split.path,
                    number=len(fitting),
                    drawn=DRAWN,
                )
            )
        with_examples.append(replace(dataset, shots=_shots(split, _in_turn(fitting)[:count])))
    return with_examples


def _sources_by_dataset(sources: Sequence[str], datasets: Sequence[str]) -> dict[str, str]:
    """Training splits of --shots-from by dataset; under "" the split of all other datasets."""
    source_of: dict[str, str] = {}
    for text in sources:
        name, equals, split = text.partition("=")
        if not equals or name not in datasets:
            name, split = "", text
        if source_of.setdefault(name, split) != split:
            raise RequestError(
                _("--shots-from {text}: another was named before: SET=NAME for each dataset", text=text)
            )
    return source_of


def _training_split(name: str, source: str | None, dataset_dir: Path | None) -> Dataset:
    if source and Path(source).is_file():
        return Dataset(source, Path(source), {})
    folder = registry_folder(dataset_dir, source or name)
    if source:
        return find_dataset(source, folder)
    train = SPLIT.sub("train", name)
    if train == name or train not in read_registry(folder):
        problem = _("no training split of {name} is known", name=name)
        if train != name:
            problem = _(
                "no training split of {name} is known (no {train} is registered)", name=name, train=train
            )
        raise RequestError(
            _(
                "--shots: {problem}: name a registered dataset or a file with --shots-from {name}=NAME",
                problem=problem,
                name=name,
            )
        )
    return find_dataset(train, folder)


def _in_turn(drawn: Sequence[Drawn]) -> list[Drawn]:
    """The first example of every answer, then the second of every answer, and so on, in the drawn order."""
    counts: Counter[str] = Counter()
    places = []
    for place, (_row, example) in enumerate(drawn):
        places.append((counts[example.answer], place))
        counts[example.answer] += 1
    return [drawn[place] for _count, place in sorted(places)]


def _shots(split: Dataset, chosen: Sequence[Drawn]) -> Shots:
    """Turns of the chosen examples without system messages: the one before the question is for all."""
    turns: Messages = []
    for _row, example in chosen:
        turns += [turn for turn in example.messages if turn["role"] != "system"]
        turns.append({"role": "assistant", "content": example.answer})
    digest = text_sha256(json.dumps(turns))
    return Shots(split.name, [row for row, _example in chosen], turns, digest)
