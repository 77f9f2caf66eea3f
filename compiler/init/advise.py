"""What is said beside a proposal: the split, what gives the answer away, the bundled spec that fits."""

import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace

from compiler.init.guess import Proposal
from compiler.init.look import CHINESE, MOST_VALUES, Found, Leaf
from compiler.kinds import PAIR, RECORDED
from compiler.rows import walker
from compiler.spec import UNLABELLED, Column, Spec, load_spec
from compiler.specfile import Source, known_specs

FEWEST = 20  # rows that are worth a split
REPEATED = 0.01
GIVEN_AWAY = 0.5
SAME = 0.95
_KEY = re.compile(r"(?:^|[_ .-])(?:id|key|uid|group|title)$|编号$|标题$", re.IGNORECASE)


def split_lines(found: Found, proposal: Proposal, share: float) -> list[str]:
    """Return the lines of a spec that split its rows (none where it has splits or too few rows).

    A column of the prompt that repeats, else one of ids, is the group, which never stands on both sides; its
    column is added to the proposal. Without one, a split of labelled rows is stratified.
    """
    if found.source.splits or found.rows < FEWEST or not share:
        return []
    name, leaf = _group(found, proposal)
    settings = [f"eval: {share:g}"]
    why = f"{share:.0%} of the rows"
    if leaf:
        if name == "group":
            kind = "any" if leaf.kind == "number" else "extra"
            line = f'  group: {{names: ["{leaf.path}"], is: {kind}}} # rows that belong together'
            proposal.columns.append(line)
        settings.append(f"group: {name}")
        why += f"; {leaf.path} repeats: its rows stay on one side"
    elif proposal.labels:
        settings.append("stratify: label")
        why += ", of each label"
    return [f"split: {{{', '.join(settings)}, seed: 42}} # {why}"]


def _group(found: Found, proposal: Proposal) -> tuple[str, Leaf | None]:
    prompts = [(name, leaf) for name, leaf in proposal.prompts.items() if leaf.kind == "text"]
    used = {leaf.path for _, leaf in prompts} | ({proposal.answer.path} if proposal.answer else set())
    keys = [
        ("group", leaf)
        for leaf in found.leaves.values()
        if leaf.path not in used and _KEY.search(leaf.path) and leaf.kind in ("text", "number")
    ]
    for name, leaf in [*prompts, *keys]:
        distinct = len(leaf.hashes)
        whole = leaf.filled == found.rows and distinct > MOST_VALUES
        if whole and found.rows - distinct > REPEATED * found.rows:
            return name, leaf
    return "", None


def warnings(found: Found, proposal: Proposal) -> Iterator[str]:
    """Yield what gives the answer away: a text of the prompt that holds it, or from which it follows."""
    if proposal.answer is None:
        return
    answer_of = walker(proposal.answer.path)
    for name, leaf in proposal.prompts.items():
        if name == "context" or leaf.kind != "text":  # where an answer is looked for
            continue
        text_of = walker(leaf.path)
        pairs = [(text_of(row), answer_of(row)) for row in found.first]
        texts = [(x.lower(), str(y).lower()) for x, y in pairs if isinstance(x, str) and _says(y)]
        every = {answer for _, answer in texts}
        lists_choices = len(every) <= MOST_VALUES  # a text that names every answer gives none away
        inside = sum(
            answer in text and not (lists_choices and len(every) > 1 and all(one in text for one in every))
            for text, answer in texts
        )
        if texts and inside > GIVEN_AWAY * len(texts):
            yield (
                f"warning: {leaf.path} contains {proposal.answer.path} in {inside} of {len(texts)} rows: "
                "the model would only copy it; leave the column out, or cut the answer from it"
            )
        elif proposal.labels and (share := _follows(pairs)) > SAME:
            yield (
                f"warning: {leaf.path} takes few values, and {proposal.answer.path} follows from it in "
                f"{share:.0%} of rows: it may be the label under another name"
            )


def _says(answer: object) -> bool:
    """Whether an answer is a text that does not stand in others by chance, as yes and 1 do."""
    return isinstance(answer, str) and len(answer) > (1 if CHINESE.search(answer) else 3)


def _follows(pairs: list[tuple[object, object]]) -> float:
    """Return the share of rows whose label is the most frequent one of their text; 0 where texts are many."""
    by_text: dict[str, Counter[str]] = {}
    for text, answer in pairs:
        by_text.setdefault(str(text), Counter())[str(answer)] += 1
    if 2 * len(by_text) > len(pairs):
        return 0.0
    return sum(max(counts.values()) for counts in by_text.values()) / len(pairs)


def bundled_spec(found: Found, proposal: Proposal, proposed: Spec) -> str:
    """Return the name of the bundled spec that reads just this, with the most columns, or "".

    It must read the media, pairs or marks that the proposed one reads. Of equals, one in the data's language
    is taken, and one of instructions before one of plain text.
    """
    if found.told or replace(found.source, quoted=None) != Source({}, {}, {}):  # a spec has to say it
        return ""
    chinese = any(leaf.in_chinese for leaf in proposal.prompts.values())

    def worth(spec: Spec) -> tuple[int, bool, bool]:
        output = spec.outputs[0]
        same_language = chinese == bool(CHINESE.search("".join(output.templates.values())))
        return len(_there(spec, found)), output.format != "text", same_language

    specs = [load_spec(name) for name in known_specs()]
    fits = [spec for spec in specs if not spec.mix and not spec.source.files and _fits(spec, found, proposed)]
    return max(fits, key=worth).name if fits else ""


def _there(spec: Spec, found: Found) -> list[Column]:
    """Return the columns of a spec that the file has, turns where the spec reads turns and nowhere else."""
    tops = {path.partition(".")[0]: "object" for path in found.leaves}  # of a message: `chosen.value`
    kinds = {**tops, **{path: leaf.kind for path, leaf in found.leaves.items()}}

    def read(column: Column, name: str) -> bool:
        return name in kinds and (column.kind in PAIR or (kinds[name] == "turns") == (column.kind == "turns"))

    return [c for c in spec.columns if c.kind != "id" and any(read(c, name) for name in c.names)]


def _fits(spec: Spec, found: Found, proposed: Spec) -> bool:
    """Whether three columns or turns, and all that a row must have, are there, and just the spec's labels."""
    there = _there(spec, found)
    turns = any(column.kind == "turns" for column in there)
    needed = [column for column in spec.columns if column.required and column.kind != "id"]
    if not (turns or len(there) > 2) or any(column not in there for column in needed):
        return False
    if {c.kind for c in proposed.columns} & set(RECORDED) - {c.kind for c in there}:
        return False
    if "system" in {c.name for c in proposed.columns} - {c.name for c in there}:
        return False
    label = next((column for column in there if column.kind == "label"), None)
    if label is None:
        return True
    leaf = next(found.leaves[name] for name in label.names if name in found.leaves)
    ours = {str(raw): name for name, raws in spec.labels.items() for raw in raws}
    return {ours.get(str(value)) for value in leaf.values} | {UNLABELLED} == {*spec.labels, UNLABELLED}
