"""The labels of a proposed spec: which column has them, and the words that they become."""

import json
import re
from collections.abc import Iterable

from tuneyard.compiler.init.column_statistics import FEWEST_ROWS, MOST_VALUES, FileStatistics, Leaf
from tuneyard.core.datasets.column_meanings import CLASS_ENDINGS, USUAL_NAMES
from tuneyard.core.errors import nearest_name, show_value, show_values
from tuneyard.core.language.message import _

Labels = dict[str, list[object]]
"""The raw labels by the label that a model answers with."""
VALUE_TYPES = ("text", "number", "truth value", "fraction")
"""Types of values that a label or an answer may have, by preference."""
NLI_MEANINGS: dict[object, str] = {
    "entailment": "yes", "not_entailment": "no", "neutral": "maybe", "contradiction": "no", "蕴含": "yes",
    "中立": "maybe", "矛盾": "no", "-": "unlabelled", -1: "unlabelled",
}  # fmt: skip
TRUTH: dict[object, str] = {True: "yes", False: "no"}
GLUE_ORDER = {2: ("yes", "no"), 3: ("yes", "maybe", "no")}
IN_CHINESE = {"yes": "是", "no": "否", "maybe": "可能", "unlabelled": "unlabelled"}
REPEATS = 5
SAID = 0.9
"""The share of texts that contain their value of a column, from which on it is hardly a class."""
LONGEST_CLASS = 30  # characters on average
ABOUT_ROW = re.compile(
    "source|split|lang(uage)?|licen[cs]e|(data|sub)set|url|domain|date|created(_at)?|version|public|author"
    "|annotator|model|语言|来源|日期"
)
"""Names of columns with few values that say where a row is from, and not what it is."""
PERSON = re.compile(
    "(user|from|author|sender)(_id|_?name)?|speaker|who|nickname|发送者|发送人|发言人|说话人|昵称|用户名|作者"
)
"""Names of columns and objects that say who wrote a message. They are no class of it."""
METADATA = {"meta", "metadata"}
ID = re.compile(r"(^|_)(id|no|number|key|uid)$|^id_|编号$")
"""Names of columns that say which row it is, or to what it belongs."""
_CHOICES = re.compile(r'\[?\{"choices": ?(\["[^"\\]+"(?:, ?"[^"\\]+")*\])\}\]?')
_SUGGESTION = re.compile(r"(^|_)suggestions?$")
_DIGIT = re.compile(r"\d")
_DATE = re.compile(r"\d{4}-\d\d-\d\d|https?:")
UNLABELLED = (
    -1, "-", "", "nan", "NaN", "null", "N/A", "n/a", "#N/A", "NA", "<NA>", "#REF!", "#VALUE!", "#NAME?",
    "#DIV/0!",
)  # fmt: skip
"""Values of rows without a label."""


def label_leaf(statistics: FileStatistics) -> Leaf | None:
    """The leaf of the labels: at least two values and not many, none of them blank.

    Texts of which most are different are answers, not labels (Firefly's `target`).
    """
    user_leaf = statistics.user_leaf("label")
    if user_leaf is not None:
        return user_leaf
    for name in USUAL_NAMES["label"]:
        leaf = statistics.named([name], VALUE_TYPES)
        if leaf is not None and is_overruled(statistics, leaf):
            continue
        if leaf is None or not 2 <= len(leaf.values) <= MOST_VALUES or "" in leaf.values:
            continue
        if statistics.rows < FEWEST_ROWS or 2 * len(leaf.values) <= leaf.filled:
            return _in_words(statistics, leaf)
    return None


def is_overruled(statistics: FileStatistics, leaf: Leaf) -> bool:
    """True for a suggestion of a model, next to which people have responded (Argilla)."""
    is_suggestion = any(_SUGGESTION.search(step) for step in leaf.steps)
    return is_suggestion and statistics.has_responses


def _in_words(statistics: FileStatistics, label: Leaf) -> Leaf:
    """The column that has a word for each number of a label, otherwise the label itself."""
    values = list(map(str, statistics.values(label)))
    if all(map(str.isdecimal, values)):
        for leaf in statistics.leaves.values():
            if leaf is label or leaf.value_type != "text" or len(leaf.values) != len(label.values):
                continue
            pairs = set(zip(values, map(str, statistics.values(leaf)), strict=True))
            if len(pairs) == len(label.values):
                return leaf
    return label


def author_leaves(statistics: FileStatistics) -> list[Leaf]:
    """The columns that say who wrote a message."""
    return [leaf for leaf in statistics.leaves.values() if any(map(PERSON.fullmatch, leaf.steps))]


def class_leaves(statistics: FileStatistics, text: Leaf) -> list[Leaf]:
    """Columns of short texts or truth values, with 2 to 30 values, that may be classes, the likeliest first.

    Those named as classes are; others need each value five times on average, and come by how even they are,
    texts first, and last what the text says itself, as the name of a product. A truth value that some rows
    lack, or that is a part of their metadata, is a mark of them.
    Values with digits under a name of ids, or of the order of messages, are none.
    Where people write to one another, `type` tells a reply from another message, and is no class.
    """
    authors = set(author_leaves(statistics))
    texts = list(map(str, statistics.values(text)))
    candidates = []
    for leaf in statistics.leaves.values():
        is_rating = leaf.is_called("rating")
        if leaf.value_type in ("number", "fraction") and not (is_rating or leaf.names):
            continue
        if leaf is text or is_overruled(statistics, leaf) or (leaf.name == "type" and authors):
            continue
        if not 2 <= len(leaf.values) <= MOST_VALUES:
            continue
        if leaf.value_type == "truth value" and (
            leaf.filled < statistics.rows or METADATA.intersection(leaf.steps)
        ):
            continue
        # Words without a digit are no ids or numbers, as in `intent_key`.
        is_id = ID.search(leaf.name) or leaf.name in USUAL_NAMES["turn order"]
        if leaf in authors or (is_id and any(map(_DIGIT.search, map(str, leaf.values)))):
            continue
        is_short = leaf.characters <= LONGEST_CLASS * leaf.filled
        repeats = (
            is_short and leaf.filled >= REPEATS * len(leaf.values) and not ABOUT_ROW.fullmatch(leaf.name)
        )
        is_named = (
            leaf.name.endswith(CLASS_ENDINGS)
            or leaf.path.endswith(".value.choices.0")
            or bool(leaf.names)
            or (repeats and is_rating)
        )
        if not is_named and (not repeats or any(map(_DATE.match, map(str, leaf.values)))):  # dates
            continue
        most_common = max(statistics.rows - leaf.filled, *leaf.values.values())
        pairs = zip(map(str, statistics.values(leaf)), texts, strict=True)
        repeated = sum(len(value) > 1 and value in text for value, text in pairs)
        is_new = repeated < SAID * len(texts)
        candidates.append((is_named, is_new, leaf.value_type == "text", -most_common, leaf))
    return [leaf for *_unused, leaf in sorted(candidates, key=lambda item: item[:4], reverse=True)]


def label_values(leaf: Leaf) -> tuple[list[object], list[object]]:
    """The distinct values of a label, sorted, and next to them all values, those of unlabelled rows last."""
    values = dict.fromkeys(map(whole_number, leaf.values))
    real = sorted((value for value in values if value not in UNLABELLED), key=str)
    return real, list(dict.fromkeys([*real, *values]))


def whole_number(value: object) -> object:
    """The whole number that digits or 1.0 are: cells of a table hold only text."""
    if isinstance(value, float) and value.is_integer():
        return int(value)
    if isinstance(value, str) and re.fullmatch(r"-?(0|[1-9]\d{0,8})", value):
        return int(value)
    return value


def label_map(leaf: Leaf, chinese: bool) -> tuple[Labels, list[str]]:
    """The label map and the guesses about it: yes and no for truth values, other labels by their own text."""
    real, values = label_values(leaf)
    if leaf.value_type == "truth value":
        return named_labels(TRUTH, values, chinese), []
    meanings = {}
    spellings: dict[str, list[str]] = {}
    for value in sorted(real, key=lambda value: str(value).swapcase()):  # small letters first
        name = _class_in(leaf.named(value))
        variants = spellings.setdefault("".join(name.lower().split()), [])
        variants.append(name)
        meanings[value] = variants[0].strip()
    labels = named_labels({value: meanings[value] for value in real}, values, chinese=False)
    guesses: list[str] = [
        _(
            "{column}: {values} differ only in case or spaces, and are one label",
            column=leaf.path,
            values=show_values(variants),
        )
        for variants in spellings.values()
        if len(variants) > 1
    ]
    for name, raw in labels.items():
        near = nearest_name(name, labels.keys() - {name})
        if near and sum(map(leaf.values.__getitem__, raw)) == 1:
            guesses.append(
                _(
                    "{column}: {label} is the class of one row; is {near} meant?",
                    column=leaf.path,
                    label=show_value(name),
                    near=near,
                )
            )
    numbers = [name for name in labels if re.fullmatch(r"[\d.]+", name)]
    if len(numbers) < len(labels.keys() - {"unlabelled"}):
        return labels, guesses
    return labels, [
        _(
            "{column} holds numbers ({numbers}), and the model learns to answer with "
            "them: write words for them under `labels` and in the prompt",
            column=leaf.path,
            numbers=", ".join(numbers),
        )
    ]


def _class_in(value: object) -> str:
    """The text of a class: `broken, late` for Label Studio's `[{"choices": ["late", "broken"]}]`."""
    choices = _CHOICES.fullmatch(str(value))
    return ", ".join(sorted(json.loads(choices[1], strict=False))) if choices else str(value)


def named_labels(meanings: dict[object, str], values: Iterable[object], chinese: bool) -> Labels:
    """The label map by meaning, in Chinese for Chinese texts. `values` without a meaning are unlabelled."""
    labels: Labels = {}
    for value in dict.fromkeys([*meanings, *values]):
        name = meanings.get(value, "unlabelled")
        label = IN_CHINESE[name] if chinese else name
        labels.setdefault(label, []).append(value)
    return labels
