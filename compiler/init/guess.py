"""The roles of a file's columns, by the vocabulary of column names and by the types of their values."""

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from tuneyard.compiler.init.look import FEWEST_ROWS, MOST_VALUES, PROSE, FileProfile, Leaf
from tuneyard.compiler.init.threads import refuse_loose_messages, refuse_trees
from tuneyard.compiler.kinds.kto import WORDS
from tuneyard.compiler.kinds.pair import PAIR
from tuneyard.compiler.kinds.turn_forms import is_transcript
from tuneyard.compiler.spec.column_meanings import CLASS_ENDINGS, PAIRS, USUAL_NAMES, meaning
from tuneyard.compiler.spec.column_names import snake_case
from tuneyard.core.errors import ContentError, RequestError, nearest
from tuneyard.core.records import PLACEHOLDERS

LABEL_KINDS = ("text", "number", "truth value", "fraction")
NLI_MEANINGS: dict[object, str] = {
    "entailment": "yes", "not_entailment": "no", "neutral": "maybe", "contradiction": "no", "蕴含": "yes",
    "中立": "maybe", "矛盾": "no", "-": "unlabelled", -1: "unlabelled",
}  # fmt: skip
GLUE_ORDER = {2: ("yes", "no"), 3: ("yes", "maybe", "no")}
NLI_PAIRS = tuple(zip(USUAL_NAMES["premise"], USUAL_NAMES["hypothesis"], strict=True))
IN_CHINESE = {"yes": "是", "no": "否", "maybe": "可能", "unlabelled": "unlabelled"}
# The prompts in English (False) and Chinese (True).
IMPLY = {
    False: 'Does "{{premise}}" imply that "{{hypothesis}}"? Please answer {}.',
    True: "由“{{premise}}”能否推出“{{hypothesis}}”？请只用一个词回答：{}。",
}
SAME = {
    False: 'Do "{{premise}}" and "{{hypothesis}}" mean the same? Please answer {}.',
    True: "“{{premise}}”和“{{hypothesis}}”意思相同吗？请只用一个词回答：{}。",
}
JUDGE = {
    False: "{{premise}}\n\n{{hypothesis}}\n\nPlease answer {}.",
    True: "{{premise}}\n\n{{hypothesis}}\n\n请只用一个词回答：{}。",
}
CLASSIFY = {False: "{{text}}\n\nPlease answer {}.", True: "{{text}}\n\n请只用一个词回答：{}。"}
DECIDE = {False: "{{question}}\n\nPlease answer {}.", True: "{{question}}\n\n请只用一个词回答：{}。"}
SUMMARIZE = {False: "Summarize this text.\n\n{text}", True: "请概括下面的文字。\n\n{text}"}
OR = {False: " or ", True: "、"}
_NUMBERED = re.compile(r"(?:^|_)[12ab](?=_|$)|[12]$")

Column = list[str] | dict[str, object]


@dataclass(slots=True)
class Proposal:
    """A spec in parts: what it is about, its columns, the templates of its one output, its labels.

    `prompts` are the leaves of the texts that the model reads, by target column. `answer` is the leaf of the
    answer. `guesses` are sentences about choices that the file does not prove.
    """

    about: str
    columns: dict[str, Column]
    write: dict[str, str]
    labels: dict[str, list[object]] = field(default_factory=dict)
    prompts: dict[str, Leaf] = field(default_factory=dict)
    answer: Leaf | None = None
    guesses: list[str] = field(default_factory=list)


Shape = Callable[[FileProfile], Proposal | None]


def guess(profile: FileProfile) -> Proposal:
    """Propose by the first shape that fits; `ContentError` lists the columns if none does."""
    for shape in _shapes(profile):
        proposal = shape(profile)
        if proposal is not None:
            return proposal
    columns = ", ".join(f"{leaf.path} ({leaf.kind})" for leaf in profile.leaves.values())
    if len(columns) >= 400:
        columns = f"{columns[:400]}…"
    raise ContentError(
        f"{profile.path}: nothing in it looks like turns, question and answer, a labelled text or plain "
        f"text; found {columns or 'no named fields'}; name its columns with --text and --label or "
        "--answer (--text twice for a pair of texts), or write a spec by hand, as compiler/specs/qa.yaml"
    )


def _shapes(profile: FileProfile) -> tuple[Shape, ...]:
    """The shapes to try; those that use the columns that the user named, if there are any."""
    user_columns = profile.user_columns
    if not user_columns:
        return SHAPES
    _check_user_columns(profile)
    if "answer" in user_columns:
        return (_exchange,)
    if "text2" in user_columns:
        return (_pair,)
    if "label" not in user_columns:
        return (_class, _plain)
    return (_class,) if "text" in user_columns else (_pair, _class)


def _check_user_columns(profile: FileProfile) -> None:
    """Raise `RequestError` if a column is missing, or has too few or too many values for a label."""
    for role, path in profile.user_columns.items():
        if path not in profile.leaves:
            columns = f"(columns: {', '.join(profile.leaves) or 'none'}) {nearest(path, profile.leaves)}"
            option = role.removesuffix("2")
            message = f"--{option} {path}: no such column in {profile.path} {columns}"
            raise RequestError(message.rstrip())
    label = profile.user_leaf("label")
    if label is None:
        if "text2" in profile.user_columns:
            raise RequestError("--text twice is a pair of texts: name the column of its labels with --label")
        return
    count = len(label.values)
    if not 2 <= count <= MOST_VALUES:
        values = f"more than {MOST_VALUES}" if count > MOST_VALUES else str(count)
        raise RequestError(
            f"--label {label.path}: {values} values, expected 2 to {MOST_VALUES}; "
            "name a column of free text with --answer"
        )


def _talk(profile: FileProfile) -> Proposal | None:
    """Conversations in a column of turns, with what is next to them: tools, media, a pair, KTO marks."""
    turns = next((leaf for leaf in profile.leaves.values() if leaf.kind == "turns"), None)
    if turns is None:
        return None
    column: dict[str, object] = {"names": [turns.path], "is": "turns"}
    if _has_text_with_calls(profile, turns.path):
        column["calls"] = "text"
    columns: dict[str, Column] = {"turns": column, **_system(profile)}
    if any(row.get("tools") for row in profile.first):
        columns["tools"] = {"names": ["tools"], "is": "tools"}
    filled_names = {key for row in profile.first for key, value in row.items() if value not in (None, "", [])}
    for kind in PLACEHOLDERS:
        for name in (kind, kind[:-1]):
            if name in filled_names:
                columns[kind] = {"names": [name], "is": kind, "default": []}
                break
    if filled_names >= set(PAIR):
        columns |= {kind: {"names": [kind], "is": kind} for kind in PAIR}
    else:
        columns |= _marks(profile)
    return Proposal("Conversations", columns, {"format": "sharegpt"})


def _has_text_with_calls(profile: FileProfile, path: str) -> bool:
    """True if a turn has both text and a tool call."""
    for row in profile.first:
        turns = row.get(path)
        for turn in turns if isinstance(turns, list) else ():
            if isinstance(turn, dict) and turn.get("tool_calls") and turn.get("content"):
                return True
    return False


def _marks(profile: FileProfile) -> dict[str, Column]:
    """The column of KTO marks: true or false in every row."""
    rows = profile.first
    for name in (*USUAL_NAMES["kto_tag"], "label"):
        if rows and all(_is_mark(name, row.get(name)) for row in rows):
            return {"kto_tag": {"names": [name], "is": "kto"}}
    return {}


def _is_mark(name: str, value: object) -> bool:
    """True for true or false. In a `label`, 0 and 1 may be classes, so only truth values count."""
    if isinstance(value, bool):
        return True
    return name != "label" and str(value).strip().lower() in WORDS


def _preference(profile: FileProfile) -> Proposal | None:
    """A question with a chosen and a rejected answer."""
    question = _question(profile)
    answers = {kind: profile.named(USUAL_NAMES[kind]) for kind in PAIR}
    columns: dict[str, Column] = {}
    for kind, leaf in answers.items():
        if question is None or leaf is None:
            return None
        columns["question"] = [question.path]
        columns[kind] = {"names": [leaf.path], "is": kind}
    if question is None:
        return None
    return _answering(profile, "Preference pairs", question, columns)


def _answering(
    profile: FileProfile, about: str, question: Leaf, columns: dict[str, Column], answer: Leaf | None = None
) -> Proposal:
    """Add the context, the system text, earlier turns and marks to a question with an answer or a pair."""
    guesses = []
    context = _context(profile, with_lists=answer is not None)
    if context is question or context is answer:
        context = None
    if context is not None:
        columns["context"] = {"names": [context.path], "is": "list" if context.kind == "texts" else "extra"}
        if not any(context.goes_by(name) for name in USUAL_NAMES["context"]):
            guesses.append(f"{context.path} is used as the input of {question.path}")
    system = _system(profile)
    if answer is not None:
        columns |= _marks(profile)
    columns |= system
    if answer is not None and any(row.get("history") for row in profile.first):
        columns["history"] = {"names": ["history"], "is": "history"}
    write = _alpaca("{question}", "{answer}" if answer else "", "{context}" if context else "")
    if system:
        write["system"] = "{system}"
    prompts = {"question": question}
    if context is not None:
        prompts["context"] = context
    return Proposal(about, columns, write, prompts=prompts, answer=answer, guesses=guesses)


def _context(profile: FileProfile, *, with_lists: bool) -> Leaf | None:
    """The text that a question is about; without a usual name, prose in a column of texts."""
    context = profile.named(USUAL_NAMES["context"])
    if context is None and with_lists:
        context = profile.named(USUAL_NAMES["context"], "texts")
    if context is None and not profile.user_columns:
        context = profile.named((*USUAL_NAMES["text"], *USUAL_NAMES["summarized"]))
        if context is not None and context.characters < PROSE * profile.rows:
            return None
    return context


def _dialogues(profile: FileProfile) -> Proposal | None:
    """Two whole dialogues to choose from, each in one text: HH-RLHF's form."""
    rows = profile.first
    if not rows or not all(is_transcript(row.get(kind)) for row in rows for kind in PAIR):
        return None
    columns: dict[str, Column] = {"turns": {"names": ["chosen"], "is": "turns"}}
    columns |= {kind: {"names": [kind], "is": kind} for kind in PAIR}
    return Proposal("Preference pairs of dialogues", columns, {"format": "sharegpt"})


def _ranked(profile: FileProfile) -> Proposal | None:
    """A question with rated answers in a list: the best and the worst are a pair."""
    question, rows = _question(profile), profile.first
    if question is None or not rows:
        return None
    answers = next((key for key, value in rows[0].items() if _rated(value)), None)
    if answers is None or not all(_rated(row.get(answers)) for row in rows):
        return None
    by, take = _rated(rows[0][answers])
    columns: dict[str, Column] = {"question": [question.path]}
    for kind in PAIR:
        columns[kind] = {"names": [answers], "is": kind, "best": {"by": by, "take": take}}
    about = "Preference pairs from ratings"
    return Proposal(about, columns, _alpaca("{question}"), prompts={"question": question})


def _rated(value: object) -> tuple[str, ...]:
    """The keys of the rating and of the text in a list of rated answers, () for anything else."""
    if not isinstance(value, list) or not value or not all(isinstance(item, dict) for item in value):
        return ()
    for by in USUAL_NAMES["rating"]:
        if not all(type(item.get(by)) in (int, float) for item in value):
            continue
        for take in (*USUAL_NAMES["answer"], *USUAL_NAMES["text"]):
            if all(isinstance(item.get(take), str) for item in value):
                return (by, take)
    return ()


def _pair(profile: FileProfile) -> Proposal | None:
    """Two texts that one label judges."""
    label, texts = _label(profile), _two_texts(profile)
    if label is None or texts is None:
        return None
    first, second, is_nli = texts
    chinese = first.in_chinese
    labels, template, guesses = _judgement(label, is_nli, chinese)
    words = OR[chinese].join(name for name in labels if name != "unlabelled")
    columns: dict[str, Column] = {
        "premise": [first.path],
        "hypothesis": [second.path],
        "label": [label.path],
    }
    write = _alpaca(template[chinese].format(_escaped(words)), "{label}")
    prompts = {"premise": first, "hypothesis": second}
    return Proposal("Pairs of texts with a judgement", columns, write, labels, prompts, label, guesses)


def _two_texts(profile: FileProfile) -> tuple[Leaf, Leaf, bool] | None:
    """The two texts of a pair, and True if their names are usual for inference (premise, hypothesis)."""
    first, second = profile.user_leaf("text"), profile.user_leaf("text2")
    if first is not None and second is not None:
        return first, second, False
    for names in PAIRS:
        first, second = profile.named(names[:1]), profile.named(names[1:])
        if first is not None and second is not None:
            return first, second, names in NLI_PAIRS
    by_base: dict[str, list[Leaf]] = {}
    for leaf in profile.leaves.values():
        base = _NUMBERED.sub("_", snake_case(leaf.path)).strip("_")
        if leaf.kind == "text" and base != snake_case(leaf.path) and base and not meaning(leaf.path):
            by_base.setdefault(base, []).append(leaf)
    pairs = [leaves for leaves in by_base.values() if len(leaves) == 2]
    pairs = [pair for pair in pairs if all(leaf.characters >= PROSE * profile.rows for leaf in pair)]
    if not pairs:
        return None
    longest = max(pairs, key=lambda pair: pair[0].characters + pair[1].characters)
    return longest[0], longest[1], False


def _judgement(
    label: Leaf, is_nli: bool, chinese: bool
) -> tuple[dict[str, list[object]], dict[bool, str], list[str]]:
    """The labels of a pair of texts, the prompt by language, and what is guessed about them."""
    values = _label_values(label)
    real = [value for value in values if value not in (-1, "-", "")]
    if all(value in NLI_MEANINGS for value in values):
        meanings = {value: NLI_MEANINGS[value] for value in [*real, *values]}
        return _named_labels(meanings, values, chinese), IMPLY, []
    if any(label.goes_by(name) for name in USUAL_NAMES["same meaning"]) and real in ([0, 1], [False, True]):
        guesses = [f"{label.path}: 1 means that the two texts mean the same (yes), 0 that they differ (no)"]
        return _named_labels({real[1]: "yes", real[0]: "no"}, values, chinese), SAME, guesses
    if is_nli and label.kind == "truth value":
        guesses = [f"{label.path}: true means yes, the first text implies the second"]
        return _named_labels({True: "yes", False: "no"}, values, chinese), IMPLY, guesses
    if is_nli and real == list(range(len(real))) and len(real) in GLUE_ORDER:
        order = GLUE_ORDER[len(real)]
        numbers = ", ".join(f"{number} is {name}" for number, name in enumerate(order))
        guesses = [
            f"{label.path}: GLUE numbers them so ({numbers}), and this file may not: in PAWS, AFQMC or QQP "
            "1 means the same. Compare some rows, and change `labels` and the prompt if it is wrong"
        ]
        return _named_labels(dict(zip(real, order, strict=True)), values, chinese), IMPLY, guesses
    labels, guesses = _labels(label, chinese)
    return (
        labels,
        JUDGE,
        [*guesses, f"the prompt shows both texts and asks for {label.path}: add the question"],
    )


def _choices(profile: FileProfile) -> Proposal | None:
    """A question, its choices in columns of one letter each, and the correct letter."""
    question = profile.named(USUAL_NAMES["question"])
    answer = profile.named(USUAL_NAMES["chosen letter"])
    letters = [leaf for name in "abcdef" if (leaf := profile.named([name]))]
    if question is None or answer is None or len(letters) < 3:
        return None
    columns: dict[str, Column] = {"question": [question.path]}
    columns |= {leaf.name: [leaf.path] for leaf in letters}
    columns["answer"] = {"names": [answer.path], "is": "answer"}
    choices = "\n".join(f"{leaf.name.upper()}. {{{leaf.name}}}" for leaf in letters)
    write = _alpaca(f"{{question}}\n{choices}", "{answer}")
    return Proposal("Questions with choices", columns, write, prompts={"question": question}, answer=answer)


def _exchange(profile: FileProfile) -> Proposal | None:
    """A question and its answer: text, a number, or true and false."""
    answer = profile.user_leaf("answer") or _answer(profile)
    if answer is None:
        return None
    question = _question(profile)
    if question is None and profile.user_columns:
        question = profile.named(USUAL_NAMES["text"])
    guesses = []
    if question is None:
        question = profile.named(USUAL_NAMES["context"])
        if question is not None:
            guesses.append(f"{question.path} is used as the question: no column is named as one")
    if question is None or question is answer:
        return None
    if answer.kind == "truth value":
        return _yes_or_no(profile, question, answer)
    kind = "answer" if answer.kind == "text" else "any"
    columns: dict[str, Column] = {
        "question": [question.path],
        "answer": {"names": [answer.path], "is": kind},
    }
    proposal = _answering(profile, "Questions and answers", question, columns, answer)
    proposal.guesses += guesses
    if kind == "any" and len(answer.values) <= MOST_VALUES < profile.rows:
        proposal.guesses.append(f"{answer.path} has few values, all numbers: they may stand for labels")
    return proposal


def _answer(profile: FileProfile) -> Leaf | None:
    """The answer by its name: text if there is one, else truth values or numbers."""
    for kind in LABEL_KINDS:
        answer = profile.named(USUAL_NAMES["answer"], kind)
        if answer is not None and not (answer.goes_by("target") and answer is _label(profile)):
            return answer
    return None


def _yes_or_no(profile: FileProfile, question: Leaf, answer: Leaf) -> Proposal:
    """A question that true and false answer, with the text that it is about (BoolQ)."""
    chinese = question.in_chinese
    labels = _named_labels({True: "yes", False: "no"}, [], chinese)
    columns: dict[str, Column] = {"question": [question.path]}
    prompts = {"question": question}
    context = _context(profile, with_lists=True)
    if context is not None and context is not question:
        columns["context"] = {"names": [context.path], "is": "list" if context.kind == "texts" else "extra"}
        prompts["context"] = context
    columns["label"] = [answer.path]
    instruction = DECIDE[chinese].format(OR[chinese].join(labels))
    write = _alpaca(instruction, "{label}", "{context}" if "context" in columns else "")
    return Proposal("Yes-no questions", columns, write, labels, prompts, answer)


def _summary(profile: FileProfile) -> Proposal | None:
    """A text and its summary."""
    text = profile.named(USUAL_NAMES["summarized"])
    summary = profile.named(USUAL_NAMES["summary"])
    if text is None or summary is None or profile.user_columns:
        return None
    columns: dict[str, Column] = {
        "text": [text.path],
        "answer": {"names": [summary.path], "is": "answer"},
    }
    write = _alpaca(SUMMARIZE[text.in_chinese], "{answer}")
    return Proposal("Texts with a summary", columns, write, prompts={"text": text}, answer=summary)


def _class(profile: FileProfile) -> Proposal | None:
    """A text with a label of few values."""
    label = _label(profile)
    text = profile.user_leaf("text") or profile.named(USUAL_NAMES["text"])
    if text is None and label is not None:
        text = _question_with_label(profile, label)
    guesses = []
    if text is None:
        text = _longest(profile)
        if text is not None:
            guesses.append(f"{text.path} is used as the text: it is the longest. --text names another")
    if label is None:
        label = _class_by_ending(profile)
        if label is not None:
            guesses.append(f"{label.path} is used as the label: it has few values. --label names another")
    if text is None or label is None or text is label:
        return None
    chinese = text.in_chinese
    labels, label_guesses = _labels(label, chinese)
    words = OR[chinese].join(name for name in labels if name != "unlabelled")
    columns: dict[str, Column] = {"text": [text.path], "label": [label.path]}
    write = _alpaca(CLASSIFY[chinese].format(_escaped(words)), "{label}")
    about, guesses = "Texts with a class", [*guesses, *label_guesses]
    return Proposal(about, columns, write, labels, {"text": text}, label, guesses)


def _question_with_label(profile: FileProfile, label: Leaf) -> Leaf | None:
    """The question that a label decides, even a short one, unless the file has an answer or a context."""
    question = profile.named(USUAL_NAMES["question"])
    other = profile.named((*USUAL_NAMES["answer"], *USUAL_NAMES["context"]))
    if question is None or other is not None:
        return None
    # with fewer values than the label it decides nothing: an instruction that all rows share
    return question if len(question.hashes) >= len(label.values) else None


def _plain(profile: FileProfile) -> Proposal | None:
    """Texts for pretraining. A text next to a question is its answer, so it is none."""
    text = profile.user_leaf("text") or profile.named(USUAL_NAMES["text"])
    if text is None:
        return None
    if not profile.user_columns and profile.named(USUAL_NAMES["question"]):
        return None
    write = {"format": "text", "text": "{text}"}
    return Proposal("Plain text for pretraining", {"text": [text.path]}, write, prompts={"text": text})


# The surest first.
SHAPES = (
    _talk,
    _dialogues,
    _ranked,
    _pair,
    _preference,
    _choices,
    _exchange,
    refuse_trees,
    refuse_loose_messages,
    _summary,
    _class,
    _plain,
)


def _question(profile: FileProfile) -> Leaf | None:
    return profile.user_leaf("text") or profile.named(USUAL_NAMES["question"])


def _longest(profile: FileProfile) -> Leaf | None:
    """The leaf with the most text, if it is prose and not a word or a number."""
    texts = [leaf for leaf in profile.leaves.values() if leaf.kind == "text"]
    longest = max(texts, key=lambda leaf: leaf.characters, default=None)
    if longest is None or longest.characters < PROSE * profile.rows:
        return None
    return longest


def _class_by_ending(profile: FileProfile) -> Leaf | None:
    """The first leaf of few texts whose name ends as the name of classes does."""
    for leaf in profile.leaves.values():
        is_short_list = leaf.kind == "text" and 2 <= len(leaf.values) <= MOST_VALUES
        if is_short_list and leaf.name.endswith(CLASS_ENDINGS):
            return leaf
    return None


def _label(profile: FileProfile) -> Leaf | None:
    """The leaf of the labels: at least two values and not many, none of them blank.

    Texts of which most are different are answers, not labels (Firefly's `target`).
    """
    user_leaf = profile.user_leaf("label")
    if user_leaf is not None:
        return user_leaf
    for name in USUAL_NAMES["label"]:
        leaf = next(filter(None, (profile.named([name], kind) for kind in LABEL_KINDS)), None)
        if leaf is None or not 2 <= len(leaf.values) <= MOST_VALUES or "" in leaf.values:
            continue
        if profile.rows < FEWEST_ROWS or 2 * len(leaf.values) <= leaf.filled:
            return leaf
    return None


def _label_values(leaf: Leaf) -> list[object]:
    """The distinct values of a label, sorted, those that stand for no label last."""
    values = list(dict.fromkeys(map(_number, leaf.values)))
    real = sorted((value for value in values if value not in (-1, "-", "")), key=str)
    return [*real, *(value for value in values if value in (-1, "-", ""))]


def _labels(leaf: Leaf, chinese: bool) -> tuple[dict[str, list[object]], list[str]]:
    """The label map: yes and no for truth values, each other label under its own text."""
    values = _label_values(leaf)
    if leaf.kind == "truth value":
        return _named_labels({True: "yes", False: "no"}, values, chinese), []
    labels: dict[str, list[object]] = {}
    for value in values:
        name = "unlabelled" if value in (-1, "-", "") else str(value)
        labels.setdefault(name, []).append(value)
    numbers = [name for name in labels if re.fullmatch(r"[\d.]+", name)]
    guesses = []
    if len(numbers) == len(labels.keys() - {"unlabelled"}):
        guesses = [
            f"{leaf.path} holds numbers ({', '.join(numbers)}), and the model learns to answer with them: "
            "write words for them under `labels` and in the prompt"
        ]
    return labels, guesses


def _named_labels(
    meanings: dict[object, str], values: Iterable[object], chinese: bool
) -> dict[str, list[object]]:
    """The label map by meaning, in Chinese for Chinese texts. `values` without a meaning are unlabelled."""
    labels: dict[str, list[object]] = {}
    for value, name in meanings.items():
        labels.setdefault(IN_CHINESE[name] if chinese else name, []).append(value)
    unlabelled = [value for value in values if value not in meanings]
    if unlabelled:
        labels.setdefault("unlabelled", []).extend(unlabelled)
    return labels


def _number(value: object) -> object:
    """The whole number that digits or 1.0 are: cells of a table hold only text."""
    if isinstance(value, float) and value.is_integer():
        return int(value)
    if isinstance(value, str) and re.fullmatch(r"-?\d{1,9}", value):
        return int(value)
    return value


def _escaped(words: str) -> str:
    """Words for a template that `format` is going to read once more."""
    return words.replace("{", "{{").replace("}", "}}")


def _system(profile: FileProfile) -> dict[str, Column]:
    leaf = profile.named(USUAL_NAMES["system"])
    return {"system": {"names": [leaf.path], "is": "extra"}} if leaf else {}


def _alpaca(instruction: str, output: str = "", context: str = "") -> dict[str, str]:
    """The format and the templates of an output; a part without a template is left out."""
    write = {"format": "alpaca", "instruction": instruction}
    if context:
        write["input"] = context
    if output:
        write["output"] = output
    return write
