"""Files with a label: pairs of texts that it judges, and texts of its class."""

import re
from collections.abc import Collection

from tuneyard.compiler.init.column_statistics import PROSE, FileStatistics, Leaf
from tuneyard.compiler.init.labels import (
    GLUE_ORDER,
    NLI_MEANINGS,
    Labels,
    class_leaves,
    label_leaf,
    label_map,
    label_values,
    named_labels,
)
from tuneyard.compiler.init.proposal import (
    Proposal,
    ProposedColumn,
    alpaca_output,
    longest_prose,
)
from tuneyard.core.datasets.column_meanings import (
    NLI_PAIRS,
    PAIRS,
    USUAL_NAMES,
    meaning,
)
from tuneyard.core.errors import ContentError
from tuneyard.core.language.message import _, joined

# The questions in English (False) and Chinese (True).
IMPLY = {
    False: 'Does "{premise}" imply that "{hypothesis}"? ',
    True: "由“{premise}”能否推出“{hypothesis}”？",
}
SAME = {
    False: 'Do "{premise}" and "{hypothesis}" mean the same? ',
    True: "“{premise}”和“{hypothesis}”意思相同吗？",
}
JUDGE = "{premise}\n\n{hypothesis}\n\n"
_FLAGS = {0, 1, "0", "1"}
SAME_LENGTH = 0.8
"""The shorter of two texts that may mean the same has at least this share of the other's characters."""
_NUMBERED = re.compile(r"(?:^|_)[12ab](?=_|$)|[12]$")


def labelled_pair(statistics: FileStatistics) -> Proposal | None:
    """Two texts that one label judges."""
    label, texts = label_leaf(statistics), paired_texts(statistics)
    if label is None or texts is None:
        return None
    first, second, is_nli = texts
    chinese = first.in_chinese
    # Equally long texts may mean the same. A premise is longer than its hypothesis.
    shortest, longest = sorted([first.characters, second.characters])
    same_length = first.name not in ("premise", "前提") and SAME_LENGTH * longest <= shortest
    labels, question, guesses = _judgement(label, is_nli, chinese, same_length)
    columns = {
        "premise": ProposedColumn(first.path),
        "hypothesis": ProposedColumn(second.path),
        "label": ProposedColumn(label.path),
    }
    write = alpaca_output(question + choice_of_words(labels, chinese), columns)
    return Proposal(_("Pairs of texts with a judgement"), columns, write, labels, guesses)


def paired_texts(statistics: FileStatistics) -> tuple[Leaf, Leaf, bool] | None:
    """The two texts of a pair, and True if their names are usual for inference (premise, hypothesis)."""
    first, second = statistics.user_leaf("text"), statistics.user_leaf("text2")
    if first is not None and second is not None:
        return first, second, False
    for names in PAIRS:
        first, second = statistics.named(names[:1]), statistics.named(names[1:])
        if first is not None and second is not None:
            return first, second, names in NLI_PAIRS
    by_base: dict[str, list[Leaf]] = {}
    for leaf in statistics.leaves.values():
        base = _NUMBERED.sub("_", leaf.name).strip("_")
        if leaf.value_type == "text" and base not in ("", leaf.name) and not meaning(leaf.path):
            by_base.setdefault(base, []).append(leaf)
    pairs = []
    for leaves in by_base.values():
        is_prose = all(leaf.characters >= PROSE * statistics.rows for leaf in leaves)
        if len(leaves) == 2 and is_prose:
            pairs.append(leaves)
    if not pairs:
        return None
    first, second = max(pairs, key=lambda pair: pair[0].characters + pair[1].characters)
    return first, second, False


def _judgement(label: Leaf, is_nli: bool, chinese: bool, same_length: bool) -> tuple[Labels, str, list[str]]:
    """The labels of a pair of texts, the question about it, and the guesses about them."""
    real, values = label_values(label)
    if all(label.named(value) in NLI_MEANINGS for value in values):
        meanings = {value: NLI_MEANINGS[label.named(value)] for value in values}
        return named_labels(meanings, values, chinese), IMPLY[chinese], []
    meanings, question, guess = {}, IMPLY, ""
    is_same = label.is_called("same meaning")
    if real == [0, 1] and (is_same or same_length):  # or false and true
        no, yes = real
        meanings, question = {yes: "yes", no: "no"}, SAME
        guess = _("1 means that the two texts mean the same (yes), 0 that they differ (no)")
        if not is_same:
            guess = _(
                "1 is read as yes, the two texts mean the same, and 0 as no, since both texts are "
                "equally long (PAWS, MRPC, QQP, AFQMC). Compare some rows: for another question, as whether "
                "one text implies the other, change `labels` and the prompt"
            )
    elif is_nli and real == list(range(len(real))) and len(real) in GLUE_ORDER:
        meanings = dict(zip(real, GLUE_ORDER[len(real)], strict=True))
        numbers = joined(
            _("{number} is {name}", number=number, name=name) for number, name in meanings.items()
        )
        guess = _(
            "GLUE numbers them so ({numbers}), and this file may not: in PAWS, AFQMC or "
            "QQP 1 means the same. Compare some rows, and change `labels` and the prompt "
            "if it is wrong",
            numbers=numbers,
        )
    if meanings:
        return (
            named_labels(meanings, values, chinese),
            question[chinese],
            [_("{column}: {guess}", column=label.path, guess=guess)],
        )
    labels, guesses = label_map(label, chinese)
    guesses.append(_("the prompt shows both texts and asks for {label}: add the question", label=label.path))
    return labels, JUDGE, guesses


def choice_of_words(labels: Collection[str], chinese: bool) -> str:
    """The end of a prompt, which lists the labels. Braces are doubled: the prompt is a template."""
    names = [name.replace("{", "{{").replace("}", "}}") for name in labels if name != "unlabelled"]
    if chinese:
        return f"请只用一个词回答：{'、'.join(names)}。"
    return f"Please answer {' or '.join(names)}."


def labelled_text(statistics: FileStatistics) -> Proposal | None:
    """A text with a label of few values."""
    label = label_leaf(statistics)
    if label is None and not statistics.user_columns:
        _refuse_labels_in_lists(statistics)
    text = statistics.user_leaf("text") or statistics.called("text")
    if text is None and label is not None:
        # The question that the label decides, even a short one, unless the file has an answer or a context.
        question = statistics.called("question")
        other = statistics.called("answer", "context")
        # With fewer values than the label it decides nothing: an instruction that all rows share.
        if question is not None and other is None and len(question.hashes) >= len(label.values):
            text = question
    guesses: list[str] = []
    if text is None:
        if not statistics.user_columns and statistics.filled_columns().intersection(USUAL_NAMES["choices"]):
            return None  # the class would be the letter of a choice
        answer = statistics.named_like("answer", "prose answer")
        text = longest_prose(statistics, besides=answer) or longest_prose(statistics)
        if text is None:
            return None
        guesses.append(
            _("{column} is used as the text: it is the longest. --text names another", column=text.path)
        )
    if label is None:
        leaves = class_leaves(statistics, text)
        if not leaves:
            return None
        label, *others = leaves
        also = [_(", as {column} has", column=leaf.path) for leaf in others]
        guesses.append(
            _(
                "{column} is used as the label: it has few values{also}. --label names another",
                column=label.path,
                also=joined(also, ""),
            )
        )
        flags = [leaf.path for leaf in statistics.leaves.values() if leaf.values.keys() <= _FLAGS]
        if {label.path} < set(flags):  # and others
            guesses.append(
                _(
                    "{columns} mark classes with 0 and 1, and the model learns {label} alone. To "
                    "learn all, name a column of the classes that a text has with --answer: "
                    "df['classes'] = df[{names}].astype(int).apply(lambda row: ', "
                    "'.join(row.index[row == 1]) or 'no class', axis=1)",
                    columns=", ".join(flags),
                    label=label.path,
                    names=repr(flags),
                )
            )
    if text is label:
        return None
    chinese = text.in_chinese
    labels, label_guesses = label_map(label, chinese)
    columns = {"text": ProposedColumn(text.path), "label": ProposedColumn(label.path)}
    write = alpaca_output("{text}\n\n" + choice_of_words(labels, chinese), columns)
    guesses += label_guesses
    seconds = statistics.values(Leaf(label.path.replace("annotations.0", "annotations.1")))
    pairs = zip(statistics.values(label), seconds, strict=True)
    count = sum(second not in (None, value) for value, second in pairs)
    if count:
        guesses.append(
            _(
                "{count} texts have another label in annotations.1, and the model learns the "
                "first one: correct them in Label Studio, or export one annotation of each "
                "text",
                count=count,
            )
        )
    return Proposal(_("Texts with a class"), columns, write, labels, guesses)


def _refuse_labels_in_lists(statistics: FileStatistics) -> None:
    """`ContentError` if labels are spans, numbers or objects in a list: the texts alone would be learned."""
    labels = statistics.named(
        (*USUAL_NAMES["label"], "annotations.result"), value_types=("list", "several objects")
    )
    if labels is not None:
        command = f"jq -c '.{labels.path} |= map(.name)' OLD > NEW.jsonl"
        if not any(suffix in statistics.path.name for suffix in (".json", ".ndjson")):  # jq reads JSON alone
            steps = "".join(f"[{step!r}]" for step in labels.path.split("."))
            command = (
                f"df{steps} = df{steps}.map(lambda labels: [label['name'] for label in labels]) in pandas"
            )
        raise ContentError(
            _(
                "{path}: {column} has several labels of one text, as spans, numbers or "
                "objects; expected one, or a list of classes as texts. From Label Studio "
                "export JSON-MIN, which has a column for each question; of objects take the "
                "names: {command}; or name the columns to learn with --text and --label or "
                "--answer",
                path=statistics.path,
                column=labels.path,
                command=command,
            )
        )
