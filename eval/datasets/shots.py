"""Examples with their answers before a question (`--shots N`), from the training split of a dataset."""

import hashlib
import json
import random
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from tuneyard.core.datasets import Dataset, find_dataset, read_records, read_registry, registry_folder
from tuneyard.core.errors import RequestError
from tuneyard.core.prompt import Conversation, conversation, refuse_media
from tuneyard.eval.datasets.dataset import EvalDataset, Shots
from tuneyard.eval.datasets.training import fingerprint_of

SEED = 42
LOOKED_AT = 1000  # rows drawn to choose from: a training split may have hundreds of thousands
SPLIT = re.compile(r"(eval|test|dev|validation|valid|val)(?=[^a-z]*$)")


def with_shots(
    sets: Sequence[EvalDataset],
    count: int,
    sources: Sequence[str],
    labels: Mapping[str, Sequence[str]] | None = None,
) -> list[EvalDataset]:
    """Return the sets, each with `count` examples of its training split (0: as they are).

    `sources` are those of --shots-from, `labels` the answers that an example of each set may have. The draw
    is seeded; answers come in turn, as far as there are several of each; no row is drawn that is evaluated.
    `RequestError` where no training split is known or it has too few examples.
    """
    if not count:
        if sources:
            raise RequestError("--shots-from says where examples come from: give --shots N with it")
        return list(sets)
    named = _named(sources, [one.name for one in sets])
    evaluated = {fingerprint_of(talk) for one in sets for talk in one.conversations}
    made = []
    for one in sets:
        train = _training_split(one.name, named.get(one.name) or named.get(""))
        own = labels[one.name] if labels else None
        found = [
            (row, talk)
            for row, talk in _drawn(train)
            if talk.role == "assistant"
            and fingerprint_of(talk) not in evaluated
            and (talk.answer.strip() if own is None else talk.answer in own)
        ]
        if len(found) < count:
            raise RequestError(
                f"--shots {count}: {train.path} has {len(found)} fitting examples that are not evaluated "
                f"among {LOOKED_AT:,} drawn; name another training split with --shots-from"
            )
        made.append(replace(one, shots=_shots(train, _in_turn(found)[:count])))
    return made


def _named(sources: Sequence[str], sets: Sequence[str]) -> dict[str, str]:
    """The training split that --shots-from names for each set; of all others under an empty name."""
    named: dict[str, str] = {}
    for text in sources:
        name, equals, rest = text.partition("=")
        own = bool(equals) and name in sets
        if named.setdefault(name if own else "", rest if own else text) != (rest if own else text):
            raise RequestError(f"--shots-from {text}: another was named before: SET=NAME for each dataset")
    return named


def _training_split(name: str, given: str | None) -> Dataset:
    if given and Path(given).is_file():
        return Dataset(given, Path(given), {})
    folder = registry_folder(name=given or name)
    if given:
        return find_dataset(given, folder)
    train = SPLIT.sub("train", name)
    if train == name or train not in read_registry(folder):
        looked = f" (no {train} is registered)" if train != name else ""
        raise RequestError(
            f"--shots: no training split of {name} is known{looked}: name a registered dataset or "
            f"a file with --shots-from {name}=NAME"
        )
    return find_dataset(train, folder)


def _drawn(train: Dataset) -> Iterator[tuple[int, Conversation]]:
    records = read_records(train.path)
    rows = random.Random(SEED).sample(range(len(records)), min(LOOKED_AT, len(records)))
    for row in rows:
        place = f"{train.path}: record {row + 1}"
        refuse_media(records[row], train.entry, place)
        yield row, conversation(records[row], train.entry, place)


def _in_turn(drawn: Sequence[tuple[int, Conversation]]) -> list[tuple[int, Conversation]]:
    """The first of every answer, then the second of every answer, …, each time as they were drawn."""
    before: Counter[str] = Counter()
    places = []
    for place, (_, talk) in enumerate(drawn):
        places.append((before[talk.answer], place))
        before[talk.answer] += 1
    return [drawn[place] for _, place in sorted(places)]


def _shots(train: Dataset, chosen: Sequence[tuple[int, Conversation]]) -> Shots:
    """The turns without system texts: the one before the question holds for all."""
    turns = [
        turn
        for _, talk in chosen
        for turn in (*talk.messages, {"role": "assistant", "content": talk.answer})
        if turn["role"] != "system"
    ]
    digest = hashlib.sha256(json.dumps(turns).encode()).hexdigest()
    return Shots(train.name, [row for row, _ in chosen], turns, digest)
