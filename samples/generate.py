"""python samples/generate.py [FOLDER]   writes the files beside it, always the same bytes.

tickets.csv has the 240 messages of customers of docs/tutorials/own-csv.md.

rte/ and mnli/ are two small inference sets written for this project. Each kind of inference is a function
that gives a premise and a hypothesis for one label; the kinds are parted between the two sets, so that an
adapter trained on one set knows something that the other does not. Labels and kinds are balanced, and no
sentence of train stands in eval.
"""

import csv
import json
import random
import sys
from collections.abc import Callable, Iterator
from itertools import cycle, product
from pathlib import Path
from typing import Any

import yaml

HERE = Path(__file__).parent
WORDS: dict[str, Any] = yaml.safe_load((HERE / "words.yaml").read_text(encoding="utf-8"))
YES, NO, MAYBE, NOT_YES = "entailment", "contradiction", "neutral", "not_entailment"
TRAIN, EVAL, SEED = 1200, 300, 42

Pair = tuple[str, str]


class Pick(random.Random):
    """A random source that draws from the vocabulary by name."""

    def word(self, name: str) -> str:
        """Return one word of the list `name`."""
        return str(self.choice(WORDS[name]))

    def words(self, name: str, count: int) -> list[str]:
        """Return `count` different words of the list `name`."""
        return self.sample(WORDS[name], count)

    def entries(self, name: str, count: int = 1) -> list[Pair]:
        """Return `count` different entries of the map `name`."""
        return self.sample(list(WORDS[name].items()), count)


def negation(pick: Pick, label: str) -> Pair:
    """What somebody did, and what is denied."""
    name, [(past, base)], spot = pick.word("names"), pick.entries("acts"), pick.word("spots")
    premises = {
        YES: [f"It is true that {name} {past} {spot}.", f"{name} {past} {spot}, and nobody saw it."],
        NO: [
            f"It is not true that {name} {past} {spot}.",
            f"{name} did not {base} {spot}, and nobody saw it.",
        ],
    }
    return pick.choice(premises[label]), f"{name} {past} {spot}."


def implicatives(pick: Pick, label: str) -> Pair:
    """Who managed to do it did it; who failed to did not."""
    return _cue(pick, "{name} {cue} to {base} {spot}.", {YES: "managed", NO: "failed"}[label])


def factives(pick: Pick, label: str) -> Pair:
    """What somebody knows is so; what somebody only dreamt is not."""
    return _cue(pick, "{who} {cue} that {name} {past} {spot}.", {YES: "knows", NO: "imagines"}[label])


def adverbs(pick: Pick, label: str) -> Pair:
    """What was finally done was done; what was nearly done was not."""
    return _cue(pick, "{name} {cue} {past} {spot}.", {YES: "finally", NO: "nearly"}[label])


def _cue(pick: Pick, premise: str, cues: str) -> Pair:
    """Return what somebody did as the hypothesis, and the premise with the word that decides about it."""
    [name, who], [(past, base)], spot = pick.words("names", 2), pick.entries("acts"), pick.word("spots")
    fields = {"name": name, "who": who, "past": past, "base": base, "spot": spot, "cue": pick.word(cues)}
    return premise.format(**fields), f"{name} {past} {spot}."


def numbers(pick: Pick, label: str) -> Pair:
    """A count, or a bound, against another bound."""
    counts, rest = WORDS["numbers"], f"{pick.word('things')} {pick.word('moves')}."
    low, middle, high = (counts[i] for i in sorted(pick.sample(range(len(counts)), 3)))
    options = {
        YES: [(middle.capitalize(), f"More than {low}"), (middle.capitalize(), f"Fewer than {high}")],
        NO: [(middle.capitalize(), f"More than {high}"), (middle.capitalize(), f"Fewer than {low}")],
        MAYBE: [(f"More than {low}", f"More than {high}"), (f"Fewer than {high}", f"Fewer than {low}")],
    }
    premise, hypothesis = pick.choice(options[label])
    return f"{premise} {rest}", f"{hypothesis} {rest}"


def hypernyms(pick: Pick, label: str) -> Pair:
    """What holds of a spaniel holds of some dog, and not the other way round."""
    [(narrow, wide)], start = pick.entries("hypernyms"), f"{pick.word('names')} {pick.word('got')}"
    spot = pick.word("spots")
    if label == NO:
        return f"{start} {_a(narrow)} {spot}.", f"{start} no {wide} {spot}."
    one, other = (narrow, wide) if label == YES else (wide, narrow)
    return f"{start} {_a(one)} {spot}.", f"{start} {_a(other)} {spot}."


def quantifiers(pick: Pick, label: str) -> Pair:
    """All, most, some, no."""
    rest = f"{pick.word('groups')} {pick.word('houses')} {pick.word('traits')}."
    options = {
        YES: [("All", "Some"), ("All", "Most"), ("Most", "Some"), ("Exactly two", "At least one of the")],
        MAYBE: [("Some", "All"), ("Some", "Most"), ("Most", "All"), ("At least one of the", "Exactly two")],
        NO: [("All", "No"), ("No", "Some"), ("Most", "No"), ("No", "Most")],
    }
    premise, hypothesis = pick.choice(options[label])
    return f"{premise} {rest}", f"{hypothesis} {rest}"


def coordination(pick: Pick, label: str) -> Pair:
    """And, or, neither … nor."""
    [one, two], [(past, _)], spot = pick.words("names", 2), pick.entries("acts"), pick.word("spots")
    who = {YES: f"Both {one} and {two}", MAYBE: f"Either {one} or {two}", NO: f"Neither {one} nor {two}"}
    return f"{who[label]} {past} {spot}.", f"{pick.choice([one, two])} {past} {spot}."


def _a(noun: str) -> str:
    return f"{'an' if noun[0] in 'aeiou' else 'a'} {noun}"


SETS: dict[str, tuple[list[Callable[[Pick, str], Pair]], dict[str, str]]] = {
    "rte": ([negation, implicatives, factives, adverbs], {YES: YES, NO: NOT_YES}),
    "mnli": ([coordination, quantifiers, hypernyms, numbers], {YES: YES, MAYBE: MAYBE, NO: NO}),
}


def draw(name: str, rows: int, pick: Pick, banned: set[str]) -> Iterator[dict[str, str]]:
    """Yield `rows` distinct pairs of a set, labels and kinds in turn, none with a sentence in `banned`."""
    kinds, labels = SETS[name]
    seen: set[Pair] = set()
    turn = cycle(product(kinds, labels))
    while len(seen) < rows:
        kind, label = next(turn)
        pair = kind(pick, label)
        while pair in seen or banned & set(pair):
            pair = kind(pick, label)
        seen.add(pair)
        yield {"premise": pair[0], "hypothesis": pair[1], "label": labels[label], "kind": kind.__name__}


def write(folder: Path) -> None:
    """Write both sets below `folder`, one JSON object a line, shuffled, with a running idx."""
    for name in SETS:
        pick, banned = Pick(f"{name} {SEED}"), set[str]()
        for part, rows in (("eval", EVAL), ("train", TRAIN)):
            pairs = list(draw(name, rows, pick, banned))
            banned |= {pair[side] for pair in pairs for side in ("premise", "hypothesis")}
            pick.shuffle(pairs)
            target = folder / name / f"{part}.jsonl"
            target.parent.mkdir(parents=True, exist_ok=True)
            lines = (json.dumps({**pair, "idx": idx}) + "\n" for idx, pair in enumerate(pairs))
            target.write_text("".join(lines), encoding="utf-8")


def write_tickets(folder: Path) -> None:
    """Write tickets.csv: each thing with each message about it, with and without a greeting, and its team."""
    with (folder / "tickets.csv").open("w", encoding="utf-8", newline="") as file:
        rows = csv.writer(file, lineterminator="\n")
        rows.writerow(["message", "team"])
        for thing, (team, messages) in product(WORDS["goods"], WORDS["tickets"].items()):
            for greeting, message in product(["", "Hello! "], messages):
                rows.writerow([greeting + message.format(thing), team])


if __name__ == "__main__":
    target_folder = Path(sys.argv[1]) if len(sys.argv) > 1 else HERE
    write(target_folder)
    write_tickets(target_folder)
