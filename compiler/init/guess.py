"""What a file's values are for, by the names in circulation: turns, pairs, answers, classes, text."""

import json
import re
from collections.abc import Iterable
from dataclasses import dataclass, field

from compiler.init.look import MOST_VALUES, Found, Leaf
from core.errors import ContentError

PAIRS = (("premise", "hypothesis"), ("sentence1", "sentence2"), ("text_a", "text_b"), ("text1", "text2"))
LABELS = ("gold_label", "label", "final_decision", "category", "class", "target", "label1")
CLASSES = ("type", "class", "category", "类型", "类别", "分类")  # how the name of a column of classes ends
ASKED = ("instruction", "prompt", "question", "query", "problem", "task", "q")
CONTEXT = ("input", "context", "contexts", "passage", "event")
ANSWERED = ("output", "response", "answer", "long_answer", "completion", "solution", "response_chosen",
            "answers.text", "chosen", "a", "judgement")  # fmt: skip
TEXT = ("text", "content", "body", "document")
MEANINGS = {
    "entailment": "yes", "not_entailment": "no", "neutral": "maybe", "contradiction": "no",
    "-": "unlabelled", -1: "unlabelled",
}  # fmt: skip
PROSE = 15  # characters that a text has on average, at least
GLUE = {2: ("yes", "no"), 3: ("yes", "maybe", "no")}


@dataclass(slots=True)
class Proposal:
    """The lines of a spec: what it is about, its columns, its one output, its labels."""

    about: str
    columns: list[str]
    write: list[str]
    labels: list[str] = field(default_factory=list)


def guess(found: Found) -> Proposal:
    """Return the first proposal that fits; `ContentError` says what was found where none does."""
    for way in (_talk, _pair, _choices, _exchange, _class, _plain):
        proposal = way(found)
        if proposal:
            return proposal
    kinds = ", ".join(f"{leaf.path} ({leaf.kind})" for leaf in found.leaves.values())
    shown = kinds if len(kinds) < 400 else f"{kinds[:400]}…"
    raise ContentError(
        f"{found.path}: nothing in it looks like turns, question and answer, a labelled text or plain text; "
        f"found {shown or 'no named fields'}; write a spec by hand, as compiler/specs/qa.yaml"
    )


def quoted(value: object) -> str:
    """Return a value as YAML and JSON both read it."""
    return json.dumps(value, ensure_ascii=False)


def _talk(found: Found) -> Proposal | None:
    turns = next((leaf for leaf in found.leaves.values() if leaf.kind == "turns"), None)
    if turns is None:
        return None
    columns = [f"  turns: {{names: [{quoted(turns.path)}], is: turns}} # its values are lists of turns"]
    columns += [
        _column(name, leaf, "extra") for name in ("system", "tools") if (leaf := _named(found, [name]))
    ]
    return Proposal("Conversations", columns, ["format: sharegpt"])


def _pair(found: Found) -> Proposal | None:
    label = _label(found)
    pairs = [(_named(found, [one]), _named(found, [two])) for one, two in PAIRS]
    first, second = next(((one, two) for one, two in pairs if one and two), (None, None))
    if first is None or second is None or label is None:
        return None
    labels, words = _labels(label, judgement=True)
    columns = [_column("premise", first), _column("hypothesis", second), _column("label", label)]
    ask = f'Does "{{premise}}" imply that "{{hypothesis}}"? Please answer {words}.'
    return Proposal("Pairs of texts with a judgement", columns, _alpaca(ask, "{label}"), labels)


def _choices(found: Found) -> Proposal | None:
    """A question, its choices in columns of one letter each, and the letter that is right."""
    asked, answered = _named(found, ASKED), _named(found, ["answer"])
    letters = [leaf for name in "abcdef" if (leaf := _named(found, [name]))]
    if asked is None or answered is None or len(letters) < 3:
        return None
    names = [leaf.name for leaf in letters]
    columns = [_column("question", asked), *(_column(leaf.name, leaf) for leaf in letters)]
    choices = "\n".join(f"{name.upper()}. {{{name}}}" for name in names)
    columns.append(_column("answer", answered, "answer"))
    return Proposal("Questions with choices", columns, _alpaca(f"{{question}}\n{choices}", "{answer}"))


def _exchange(found: Found) -> Proposal | None:
    asked, answered = _named(found, ASKED), _named(found, ANSWERED)
    if asked is None or answered is None:
        return None
    columns = [_column("question", asked), _column("answer", answered, "answer")]
    context = _named(found, CONTEXT) or _named(found, CONTEXT, "texts")
    if context:
        columns.append(_column("context", context, "list" if context.kind == "texts" else "extra"))
    write = _alpaca("{question}", "{answer}", "{context}" if context else "")
    return Proposal("Questions and answers", columns, write)


def _class(found: Found) -> Proposal | None:
    named, labelled = _named(found, TEXT), _label(found)
    text, label = named or _longest(found), labelled or _class_by_ending(found)
    if text is None or label is None:
        return None
    labels, words = _labels(label, judgement=False)
    ask = f"{{text}}\n\nPlease answer {words}."
    columns = [
        _column("text", text, why="by its name" if named else "guessed: the longest of its texts"),
        _column("label", label, why="by its name" if labelled else "guessed: few values, a class's name"),
    ]
    return Proposal("Texts with a class", columns, _alpaca(ask, "{label}"), labels)


def _plain(found: Found) -> Proposal | None:
    text = _named(found, TEXT)
    if text is None or _named(found, ASKED):  # a text beside a question is its answer
        return None
    return Proposal("Plain text for pretraining", [_column("text", text)], ["format: text", 'text: "{text}"'])


def _named(found: Found, names: Iterable[str], kind: str = "text") -> Leaf | None:
    """Return the first leaf of this type that goes by one of the names."""
    leaves = found.leaves.values()
    return next((leaf for name in names for leaf in leaves if leaf.goes_by(name) and leaf.kind == kind), None)


def _longest(found: Found) -> Leaf | None:
    """Return the leaf of the most text, where it is prose and no word or number."""
    texts = [leaf for leaf in found.leaves.values() if leaf.kind == "text"]
    longest = max(texts, key=lambda leaf: leaf.characters, default=None)
    return longest if longest and longest.characters >= PROSE * found.rows else None


def _class_by_ending(found: Found) -> Leaf | None:
    """Return the first leaf of few texts whose name ends as one of classes does; a blank one is none."""
    for leaf in found.leaves.values():
        few = 2 <= len(leaf.values) <= MOST_VALUES and leaf.kind == "text"
        if few and leaf.name.endswith(CLASSES):
            return leaf
    return None


def _label(found: Found) -> Leaf | None:
    """Return the label's leaf: at least two values and not many, whole numbers or texts."""
    for name in LABELS:
        leaf = _named(found, [name]) or _named(found, [name], "number")
        if leaf and 2 <= len(leaf.values) <= MOST_VALUES and "" not in leaf.values:
            return leaf
    return None


def _labels(leaf: Leaf, judgement: bool) -> tuple[list[str], str]:
    """Return the lines of the label map, and the words to answer with."""
    values = list(dict.fromkeys(_number(value) for value in leaf.values))
    real = sorted((value for value in values if value not in (-1, "-", "")), key=str)
    if judgement and all(value in MEANINGS for value in values):
        meanings, why = {value: MEANINGS[value] for value in [*real, *values]}, "by their names"
    elif judgement and real == list(range(len(real))) and len(real) in GLUE:
        meanings = dict(zip(real, GLUE[len(real)], strict=True))
        why = "guessed: GLUE numbers them so; look whether this file does"
    else:
        meanings, why = {value: str(value) for value in real}, "each label as it stands"
    meanings |= {value: "unlabelled" for value in values if value not in real}
    ours: dict[str, list[object]] = {}
    for value, name in meanings.items():
        ours.setdefault(name, []).append(value)
    lines = [f"  {quoted(name)}: {json.dumps(raws, ensure_ascii=False)}" for name, raws in ours.items()]
    words = " or ".join(name for name in ours if name != "unlabelled")
    return [f"{lines[0]} # {why}", *lines[1:]], words.replace("{", "{{").replace("}", "}}")


def _number(value: object) -> object:
    """Return digits as the whole number that they are: the text cells of a table have no other way."""
    return int(value) if isinstance(value, str) and re.fullmatch(r"-?\d{1,9}", value) else value


def _column(name: str, leaf: Leaf, kind: str = "", why: str = "by its name") -> str:
    """Return the line of a column; a type other than text is named."""
    names = f"[{quoted(leaf.path)}]"
    return f"  {name}: {f'{{names: {names}, is: {kind}}}' if kind else names} # {why}"


def _alpaca(instruction: str, output: str, context: str = "") -> list[str]:
    lines = ["format: alpaca", f"instruction: {quoted(instruction)}"]
    lines += [f"input: {quoted(context)}"] if context else []
    return [*lines, f"output: {quoted(output)}"]
