"""What a file's values are for, by the names in circulation: turns, pairs, answers, classes, text."""

import json
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from tuneyard.compiler.init.look import MOST_VALUES, PROSE, Found, Leaf
from tuneyard.compiler.kinds.kto import WORDS
from tuneyard.compiler.kinds.pair import PAIR
from tuneyard.compiler.kinds.turn_forms import is_transcript
from tuneyard.core.errors import ContentError, RequestError, nearest
from tuneyard.core.prompt import PLACEHOLDERS

# The names by which columns go, in English and Chinese, and the words of the prompts in both.
PAIRS = (
    ("premise", "hypothesis"), ("sentence1", "sentence2"), ("text_a", "text_b"), ("text1", "text2"),
    ("前提", "假设"), ("句子1", "句子2"), ("文本1", "文本2"),
)  # fmt: skip
LABELS = ("gold_label", "label", "labels", "final_decision", "category", "class", "target", "label1",
          "sentiment", "标签", "标注", "类别", "分类")  # fmt: skip
PARENTS = ("parent_id", "parent_message_id", "parent", "reply_to", "reply_to_id", "in_reply_to")
REPLIES = ("replies", "children")
OF_MESSAGES = ("role", "from", "speaker", "author_role", "message_id")
CLASSES = ("type", "class", "category", "类型", "类别", "分类")  # how the name of a column of classes ends
ASKED = ("instruction", "prompt", "question", "query", "problem", "task", "ask", "q",
         "指令", "提示", "问题", "提问", "题目")  # fmt: skip
CONTEXT = ("input", "context", "contexts", "passage", "event", "输入", "上下文", "背景", "补充信息")
ANSWERED = ("output", "response", "answer", "long_answer", "completion", "solution", "response_chosen",
            "answers.text", "chosen", "a", "judgement", "reply",
            "输出", "回答", "答案", "回复", "答复")  # fmt: skip
MARKS = ("kto_tag", "label", "desirable", "is_desirable")  # of KTO: whether an answer is wanted
RATINGS = ("overall_score", "score", "rating", "reward", "votes", "pm_score", "评分", "得分")
CHOSEN = ("answer", "答案", "正确答案")  # the letter of a choice
TEXT = ("text", "content", "body", "document", "文本", "内容", "正文", "句子", "评论")
MEANINGS: dict[object, str] = {
    "entailment": "yes", "not_entailment": "no", "neutral": "maybe", "contradiction": "no", "蕴含": "yes",
    "中立": "maybe", "矛盾": "no", "-": "unlabelled", -1: "unlabelled",
}  # fmt: skip
GLUE = {2: ("yes", "no"), 3: ("yes", "maybe", "no")}
IN_CHINESE = {"yes": "是", "no": "否", "maybe": "可能", "unlabelled": "unlabelled"}
JUDGE = {
    False: 'Does "{{premise}}" imply that "{{hypothesis}}"? Please answer {}.',
    True: "由“{{premise}}”能否推出“{{hypothesis}}”？请只用一个词回答：{}。",
}
CLASSIFY = {False: "{{text}}\n\nPlease answer {}.", True: "{{text}}\n\n请只用一个词回答：{}。"}
OR = {False: " or ", True: "、"}


@dataclass(slots=True)
class Proposal:
    """The lines of a spec: what it is about, its columns, its one output, its labels.

    `prompts` are the leaves of the texts that the model reads, by our column; `answer` is that of the answer.
    """

    about: str
    columns: list[str]
    write: list[str]
    labels: list[str] = field(default_factory=list)
    prompts: dict[str, Leaf] = field(default_factory=dict)
    answer: Leaf | None = None


Shape = Callable[[Found], Proposal | None]


def guess(found: Found) -> Proposal:
    """Return the first proposal that fits; `ContentError` says what was found where none does."""
    for shape in _told(found) if found.told else SHAPES:
        if proposal := shape(found):
            return proposal
    kinds = ", ".join(f"{leaf.path} ({leaf.kind})" for leaf in found.leaves.values())
    shown = kinds if len(kinds) < 400 else f"{kinds[:400]}…"
    raise ContentError(
        f"{found.path}: nothing in it looks like turns, question and answer, a labelled text or plain text; "
        f"found {shown or 'no named fields'}; name its columns with --text and --label or "
        "--answer, or write a spec by hand, as compiler/specs/qa.yaml"
    )


def quoted(value: object) -> str:
    """JSON that YAML reads as the same value.

    YAML folds line separators inside a text and refuses control characters. They are escaped. Characters
    above U+FFFF stay: YAML does not read the two escapes that JSON needs for one of them.
    """
    text = json.dumps(value, ensure_ascii=False)
    characters = []
    for character in text:
        is_safe = character.isprintable() or ord(character) > 0xFFFF
        characters.append(character if is_safe else f"\\u{ord(character):04x}")
    return "".join(characters)


def _told(found: Found) -> tuple[Shape, ...]:
    """Return the shapes that use the columns that the user named; `RequestError` where one is not there."""
    for option, path in found.told.items():
        if path not in found.leaves:
            there = f"(columns: {', '.join(found.leaves) or 'none'}) {nearest(path, found.leaves)}"
            raise RequestError(f"--{option} {path}: no such column in {found.path} {there}".rstrip())
    if "answer" in found.told:
        return (_exchange,)
    if "label" in found.told:
        count = len(found.leaves[found.told["label"]].values)
        if not 2 <= count <= MOST_VALUES:
            many = f"more than {MOST_VALUES}" if count > MOST_VALUES else str(count)
            wrong = f"--label {found.told['label']}: {many} values, expected 2 to {MOST_VALUES}"
            raise RequestError(f"{wrong}; name a column of free text with --answer")
        return (_class,) if "text" in found.told else (_pair, _class)
    return (_class, _plain)


def _talk(found: Found) -> Proposal | None:
    turns = next((leaf for leaf in found.leaves.values() if leaf.kind == "turns"), None)
    if turns is None:
        return None
    talks = (talk for row in found.first if isinstance(talk := row.get(turns.path), list))
    messages = (turn for talk in talks for turn in talk if isinstance(turn, dict))
    said = any(turn.get("tool_calls") and turn.get("content") for turn in messages)
    beside, why = (", calls: text", ", some with text beside a call of a tool") if said else ("", "")
    columns = [f"  turns: {{names: [{quoted(turns.path)}], is: turns{beside}}} # its values are turns{why}"]
    columns += _system(found)
    columns += [_by_name("tools")] if any(row.get("tools") for row in found.first) else []
    named = {key for row in found.first for key, value in row.items() if value not in (None, "", [])}
    media = [(kind, name) for kind in PLACEHOLDERS for name in (kind, kind[:-1]) if name in named]
    columns += [_by_name(kind, name, ", default: []") for kind, name in media]
    columns += map(_by_name, PAIR) if named >= set(PAIR) else _marks(found)
    return Proposal("Conversations", columns, ["format: sharegpt"])


def _marks(found: Found) -> list[str]:
    rows = found.first
    marks = [key for key in MARKS if rows and all(_is_mark(key, row.get(key)) for row in rows)]
    return [f"  kto_tag: {{names: [{key}], is: kto}} # true or false in every row" for key in marks[:1]]


def _is_mark(name: str, value: object) -> bool:
    """Whether a value says true or false: in a `label` only as a truth value: 0 and 1 are classes too."""
    return isinstance(value, bool) or (name != "label" and str(value).strip().lower() in WORDS)


def _preference(found: Found) -> Proposal | None:
    asked = _asked(found)
    answers = [(kind, leaf) for kind in PAIR if (leaf := _named(found, [kind]))]
    if asked is None or len(answers) < len(PAIR):
        return None
    columns = [_column("question", asked), *(_column(kind, leaf, kind) for kind, leaf in answers)]
    return _answering(found, "Preference pairs", asked, columns)


def _answering(
    found: Found, about: str, asked: Leaf, columns: list[str], answer: Leaf | None = None
) -> Proposal:
    """Return the proposal for a question with its context, the system's words and an answer, or a pair."""
    context = _named(found, CONTEXT) or (_named(found, CONTEXT, "texts") if answer else None)
    if context:
        columns.append(_column("context", context, "list" if context.kind == "texts" else "extra"))
    columns += _marks(found) if answer else []
    columns += (system := _system(found))
    if answer and any(row.get("history") for row in found.first):
        columns.append(_by_name("history"))
    write = _alpaca("{question}", "{answer}" if answer else "", "{context}" if context else "")
    write += ['system: "{system}"'] if system else []
    prompts = {"question": asked, **({"context": context} if context else {})}
    return Proposal(about, columns, write, prompts=prompts, answer=answer)


def _dialogues(found: Found) -> Proposal | None:
    """Two whole dialogues to choose from, each one text: HH-RLHF's form."""
    rows = found.first
    if not rows or any(not is_transcript(row.get(kind)) for row in rows for kind in PAIR):
        return None
    columns = ["  turns: {names: [chosen], is: turns} # the prompt stands before the chosen answer"]
    return Proposal("Preference pairs of dialogues", [*columns, *map(_by_name, PAIR)], ["format: sharegpt"])


def _ranked(found: Found) -> Proposal | None:
    """A question and rated answers to it in a list: the best and the worst are a pair."""
    asked, rows = _asked(found), found.first
    answers = next((key for row in rows[:1] for key, value in row.items() if _rated(value)), None)
    if asked is None or answers is None or not all(_rated(row.get(answers)) for row in rows):
        return None
    by, take = _rated(rows[0][answers])
    best = f"best: {{by: {quoted(by)}, take: {quoted(take)}}}"
    columns = [_column("question", asked)]
    columns += [
        f"  {kind}: {{names: [{quoted(answers)}], is: {kind}, {best}}} # its {end} {by}"
        for kind, end in zip(PAIR, ("highest", "lowest"), strict=True)
    ]
    about, write = "Preference pairs from ratings", _alpaca("{question}")
    return Proposal(about, columns, write, prompts={"question": asked})


def _rated(value: object) -> tuple[str, ...]:
    """Return the keys of the rating and of the text in a list of rated answers, () for anything else."""
    if not isinstance(value, list) or not value or not all(isinstance(item, dict) for item in value):
        return ()
    rated = (name for name in RATINGS if all(type(item.get(name)) in (int, float) for item in value))
    by = next(rated, None)
    texts = (name for name in (*ANSWERED, *TEXT) if all(isinstance(item.get(name), str) for item in value))
    take = next(texts, None)
    return (by, take) if by and take else ()


def _pair(found: Found) -> Proposal | None:
    label = _label(found)
    pairs = [(_named(found, [one]), _named(found, [two])) for one, two in PAIRS]
    first, second = next(((one, two) for one, two in pairs if one and two), (None, None))
    if first is None or second is None or label is None:
        return None
    chinese = first.in_chinese
    labels, words = _labels(label, judgement=True, chinese=chinese)
    columns = [_column("premise", first), _column("hypothesis", second), _column("label", label)]
    write = _alpaca(JUDGE[chinese].format(words), "{label}")
    prompts = {"premise": first, "hypothesis": second}
    return Proposal("Pairs of texts with a judgement", columns, write, labels, prompts, label)


def _choices(found: Found) -> Proposal | None:
    """A question, its choices in columns of one letter each, and the letter that is right."""
    asked, answered = _named(found, ASKED), _named(found, CHOSEN)
    letters = [leaf for name in "abcdef" if (leaf := _named(found, [name]))]
    if asked is None or answered is None or len(letters) < 3:
        return None
    columns = [_column("question", asked), *(_column(leaf.name, leaf) for leaf in letters)]
    columns.append(_column("answer", answered, "answer"))
    choices = "\n".join(f"{leaf.name.upper()}. {{{leaf.name}}}" for leaf in letters)
    write = _alpaca(f"{{question}}\n{choices}", "{answer}")
    return Proposal("Questions with choices", columns, write, prompts={"question": asked}, answer=answered)


def _exchange(found: Found) -> Proposal | None:
    asked = _asked(found) or _named(found, TEXT if found.told else ())
    answered = found.leaf_told("answer") or _named(found, ANSWERED)
    if asked is None or answered is None or asked is answered:
        return None
    columns = [_column("question", asked), _column("answer", answered, "answer")]
    return _answering(found, "Questions and answers", asked, columns, answered)


def _class(found: Found) -> Proposal | None:
    named, labelled = found.leaf_told("text") or _named(found, TEXT), _label(found)
    asked = _question(found, labelled) if labelled and not named else None
    text, label = named or asked or _longest(found), labelled or _class_by_ending(found)
    if text is None or label is None or text is label:
        return None
    labels, words = _labels(label, judgement=False, chinese=text.in_chinese)
    ask = CLASSIFY[text.in_chinese].format(words)
    columns = [
        _column("text", text, why="by its name" if named or asked else "guessed: the longest of its texts"),
        _column("label", label, why="by its name" if labelled else "guessed: few values, a class's name"),
    ]
    write = _alpaca(ask, "{label}")
    return Proposal("Texts with a class", columns, write, labels, {"text": text}, label)


def _question(found: Found, label: Leaf) -> Leaf | None:
    """Return the question that a label is of, be it short: where nothing answers it or stands beside it."""
    asked, beside = _named(found, ASKED), _named(found, (*ANSWERED, *CONTEXT))
    # of fewer values than the label it decides nothing: an instruction that all rows share
    return asked if asked and not beside and len(asked.hashes) >= len(label.values) else None


def _plain(found: Found) -> Proposal | None:
    text = found.leaf_told("text") or _named(found, TEXT)
    if text is None or (_named(found, ASKED) and not found.told):  # a text beside a question is its answer
        return None
    write = ["format: text", 'text: "{text}"']
    return Proposal("Plain text for pretraining", [_column("text", text)], write, prompts={"text": text})


WRITE_THREADS = (
    "Write each path from a first message to a last answer as one line: "
    '{"messages": [{"role": "user", "content": "…"}, {"role": "assistant", "content": "…"}]}. '
    "Spec messages compiles that file."
)


def _trees(found: Found) -> Proposal | None:
    """Refuse rows that are trees of messages, as OASST's: their first message alone is no example."""
    if found.told:
        return None
    path = next(filter(None, (_path_to_replies(row) for row in found.first)), "")
    if not path:
        return None
    raise ContentError(
        f"{found.path}: each row is a tree of messages (the answers are under {path}), so no row is an "
        f"example; expected one row for each conversation. {WRITE_THREADS}"
    )


def _path_to_replies(value: object, path: str = "") -> str:
    """Return the path to the first list of messages that answer the object they are in, "" if none does."""
    for key, inner in value.items() if isinstance(value, dict) else ():
        here = f"{path}.{key}" if path else str(key)
        if key in REPLIES and isinstance(inner, list):
            if any(isinstance(reply, dict) and not set(TEXT).isdisjoint(reply) for reply in inner):
                return here
        elif below := _path_to_replies(inner, here):
            return below
    return ""


def _loose_messages(found: Found) -> Proposal | None:
    """Refuse rows that are single messages of threads, as OASST's: none of them is an example by itself."""
    leaves = found.leaves.values()
    parents = [leaf.path for name in PARENTS for leaf in leaves if leaf.goes_by(name)]
    own = [leaf.path for name in OF_MESSAGES for leaf in leaves if leaf.goes_by(name)]
    text = _named(found, TEXT)
    if not parents or not own or text is None:
        return None
    parent = parents[0]
    raise ContentError(
        f"{found.path}: each row is one message of a thread ({parent} names the message before it), so no "
        "row is an example; expected one row for each conversation. "
        f"Follow {parent} from each last answer to the first message. {WRITE_THREADS} "
        f"To pretrain on single messages all the same: --text {text.path}"
    )


# The surest first.
SHAPES = (
    _talk,
    _dialogues,
    _ranked,
    _pair,
    _preference,
    _choices,
    _exchange,
    _trees,
    _loose_messages,
    _class,
    _plain,
)


def _asked(found: Found) -> Leaf | None:
    return found.leaf_told("text") or _named(found, ASKED)


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
    few = (leaf for leaf in found.leaves.values() if 2 <= len(leaf.values) <= MOST_VALUES)
    return next((leaf for leaf in few if leaf.kind == "text" and leaf.name.endswith(CLASSES)), None)


def _label(found: Found) -> Leaf | None:
    """Return the label's leaf: at least two values and not many, whole numbers, truth values or texts."""
    if told := found.leaf_told("label"):
        return told
    for name in LABELS:
        leaves = (_named(found, [name], kind) for kind in ("text", "number", "truth value", "fraction"))
        leaf = next(filter(None, leaves), None)
        if leaf and 2 <= len(leaf.values) <= MOST_VALUES and "" not in leaf.values:
            return leaf
    return None


def _labels(leaf: Leaf, judgement: bool, chinese: bool) -> tuple[list[str], str]:
    """Return the lines of the label map, and the words to answer with."""
    values = list(dict.fromkeys(_number(value) for value in leaf.values))
    real = sorted((value for value in values if value not in (-1, "-", "")), key=str)
    truths = leaf.kind == "truth value"
    if judgement and all(value in MEANINGS for value in values):
        meanings, why = {value: MEANINGS[value] for value in [*real, *values]}, "by their names"
    elif judgement and not truths and real == list(range(len(real))) and len(real) in GLUE:
        meanings = dict(zip(real, GLUE[len(real)], strict=True))
        why = "guessed: GLUE numbers them so; look whether this file does"
    elif truths:
        meanings, why = {True: "yes", False: "no"}, "a truth value"
    else:
        meanings, why = {value: str(value) for value in real}, "each label as it stands"
    if chinese and why != "each label as it stands":
        meanings = {value: IN_CHINESE[name] for value, name in meanings.items()}
    meanings |= {value: "unlabelled" for value in values if value not in real}
    ours: dict[str, list[object]] = {}
    for value, name in meanings.items():
        ours.setdefault(name, []).append(value)
    lines = [f"  {quoted(name)}: {quoted(raws)}" for name, raws in ours.items()]
    words = OR[chinese].join(name for name in ours if name != "unlabelled")
    return [f"{lines[0]} # {why}", *lines[1:]], words.replace("{", "{{").replace("}", "}}")


def _number(value: object) -> object:
    """Return digits, and 1.0, as the whole number that they are: the cells of a table have no other way."""
    if isinstance(value, float) and value.is_integer():
        return int(value)
    return int(value) if isinstance(value, str) and re.fullmatch(r"-?\d{1,9}", value) else value


def _system(found: Found) -> list[str]:
    leaf = _named(found, ["system"])
    return [_column("system", leaf, "extra")] if leaf else []


def _column(name: str, leaf: Leaf, kind: str = "", why: str = "by its name") -> str:
    """Return the line of a column; a type other than text is named."""
    names = f"[{quoted(leaf.path)}]"
    return f"  {name}: {f'{{names: {names}, is: {kind}}}' if kind else names} # {why}"


def _by_name(kind: str, name: str = "", rest: str = "") -> str:
    """Return the line of a column that goes by its kind, or by another name of it."""
    return f"  {kind}: {{names: [{name or kind}], is: {kind}{rest}}} # by its name"


def _alpaca(instruction: str, output: str = "", context: str = "") -> list[str]:
    texts = {"instruction": instruction, "input": context, "output": output}
    return ["format: alpaca", *(f"{part}: {quoted(text)}" for part, text in texts.items() if text)]
