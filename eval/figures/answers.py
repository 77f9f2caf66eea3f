"""Generated text to one of the labels, or `unknown`: as a word, or as the published script searched.

The word parser takes the one label that the text gives as an answer, see `parse_word`; `not` and `know`
are no `no`. The substring parser takes the first label that occurs anywhere; results were published with it.
"""

import json
import re
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import NamedTuple

from tuneyard.eval.figures.labels import UNKNOWN

Parse = Callable[[str, Sequence[str]], str]

SEED_ORDER = ("yes", "no", "maybe")
THOUGHT_WORDS = (
    ("<think>", "</think>"),
    ("<seed:think>", "</seed:think>"),
    ("◁think▷", "◁/think▷"),
    ("[THINK]", "[/THINK]"),
    ("<thought>", "</thought>"),
    ("<thinking>", "</thinking>"),
    ("<|START_THINKING|>", "<|END_THINKING|>"),
    ("<|begin_of_thought|>", "<|end_of_thought|>"),
    ("<|channel>thought\n", "<channel|>"),
    ("<|channel|>analysis<|message|>", "<|channel|>final<|message|>"),
)
"""Begin and end of a thought: those of LLaMA-Factory's templates (`thought_words`), and of other models.

These are Magistral, EXAONE Deep, Claude, Command A and OpenThinker.
"""
WHOLE_NUMBER = re.compile(r"[+-]?\d+\.0")
LARGEST_EXACT = 1 << 53
"""Below it every whole number is a float of its own."""
HAN = re.compile(r"[㐀-鿿]")
ZH_LEAD = "|".join(
    f"(?<={lead})"
    for lead in ("答案是", "答案为", "回答是", "结论是", "判断为", "选择", "我", "或", "或者", "还是")
)
NEGATION = re.compile(
    r"\b(?:not|no|never|neither|nor|n[o']t|isn't|wasn't|than)\s+(?:an?\s+|the\s+)?[\"'“‘*]*$"
)
LONGEST_NEGATION = 100
"""Characters of a negation with the white space and the quotes after it."""
CLOSED = re.compile(r"的?\s*?(?:$|[^\w\s]|\n)")  # what ends a clause right after a label
# `no doubt`, `no dog`: before an ordinary word it is an article and no answer; these words may follow one.
ARTICLE = (
    r"(?!\s+(?!(?:and|or|but|because|since|as|so|if|is|it|he|she|they|we|you|i|this|that|there|the|an?)\b)\w)"
)
REFUSAL = re.compile(
    r"\bi(?:'m| am) (?:sorry|unable|not able)|\bi (?:can(?:'t|not| not)|won't|will not|refuse)\b"
    r"|\bi do(?: not|n't) know\b|\bas an ai\b|抱歉|无法(?:回答|判断|提供)|不能回答|我不知道"
)


def _any_of(words: Iterable[str]) -> str:
    return "|".join(map(re.escape, words))


BEGINS = _any_of(begin.rstrip() for begin, _end in THOUGHT_WORDS)  # also of an answer that was trimmed there
ENDS = _any_of(end for _begin, end in THOUGHT_WORDS)
WITHOUT_MARKS = "analysis.*assistantfinal"  # gpt-oss, decoded without special tokens as do_predict does
THOUGHT = re.compile(rf"\A.*(?:{ENDS})|\A{WITHOUT_MARKS}|(?:{BEGINS}).*\Z", re.DOTALL)
"""The prompt may have the beginning of a thought."""
ANSWER_MARKS = re.compile(r"<\|(?:START|END)_RESPONSE\|>|<\|(?:begin|end)_of_solution\|>")
"""Marks around the answer after a thought: Command A's and OpenThinker's."""


def cut_thought(text: str) -> str:
    """Cut the thought out of an answer. An unfinished thought leaves an empty answer.

    Marks inside of a JSON object or list belong to its texts.

    >>> cut_thought("<think>2 is even.</think> Yes")
    'Yes'
    """
    if THOUGHT.search(text) and _json_key(text.strip()) is not None:
        return text.strip()
    return ANSWER_MARKS.sub("", THOUGHT.sub("", text)).strip()


def answer_key(answer: str) -> str:
    """A text that equal answers of a log share: NFC, trimmed, case-folded, without one final dot.

    An integer equals itself with `.0`; other numbers are texts: 1.10 is not 1.1. JSON objects and lists are
    equal by their values.

    >>> answer_key(" Yes."), answer_key("3.0"), answer_key("1.10"), answer_key('{"b":2.0,"a":1}')
    ('yes', '3', '1.10', '{"a": 1, "b": 2}')
    """
    text = unicodedata.normalize("NFC", answer).strip()
    json_text = _json_key(text)
    if json_text is not None:
        text = json_text
    folded = text.casefold()
    key = unicodedata.normalize("NFC", folded)
    if len(key) > 1 and key[-1] in ".。":
        key = key[:-1].rstrip()
    if WHOLE_NUMBER.fullmatch(key):
        key = key.removesuffix(".0")
    return key


def _json_key(text: str) -> str | None:
    """A JSON object or list with sorted keys and one spelling of spaces and numbers, None for other texts."""
    if text[:1] not in ("{", "["):
        return None
    try:
        value = json.loads(text, parse_float=_whole_or_float)
        return json.dumps(value, ensure_ascii=False, sort_keys=True)
    except (ValueError, RecursionError):
        return None


def _whole_or_float(digits: str) -> int | float:
    number = float(digits)
    if number.is_integer() and abs(number) < LARGEST_EXACT:
        return int(number)
    return number


def one_spelling(answers: Sequence[str], labels: Sequence[str] = ()) -> dict[str, str]:
    """Each answer with the label that it equals by `answer_key`: one of `labels`, or its usual spelling.

    >>> one_spelling(["yes", "Yes.", "yes", "no"])
    {'yes': 'yes', 'Yes.': 'yes', 'no': 'no'}
    """
    spellings: dict[str, str] = {}
    common_first = [answer for answer, _count in Counter(answers).most_common()]
    for text in (*labels, *common_first):
        spellings.setdefault(answer_key(text), text)
    return {answer: spellings[answer_key(answer)] for answer in dict.fromkeys(answers)}


def parse_word(text: str, labels: Sequence[str]) -> str:
    """Parse the one label that the text gives as its answer, otherwise `unknown`.

    A label alone (between punctuation, line breaks or the text's ends) is the answer, unless another label
    ends a clause: `Yes, there is no doubt` is yes, `Yes, or no` is unknown. If no label is alone, the answer
    is the only label that is a whole word and not negated. A label after a refusal is not an answer.
    """
    answer = cut_thought(text).lower().replace("’", "'")
    hits = list(_find(answer, labels))
    closed = [hit for hit in hits if CLOSED.match(answer, hit.end)]
    alone = any(_begins_a_clause(answer, hit.start) for hit in closed)
    negated = {hit for hit in hits if NEGATION.search(answer, hit.start - LONGEST_NEGATION, hit.start)}
    if negated and not alone:
        return UNKNOWN
    if alone:
        hits = [hit for hit in closed if hit not in negated]
    refusal = REFUSAL.search(answer)
    if refusal and any(refusal.start() < hit.start for hit in hits):
        return UNKNOWN
    answers = {hit.label for hit in hits}
    return answers.pop() if len(answers) == 1 else UNKNOWN


def parse_substring(text: str, labels: Sequence[str]) -> str:
    """Find the first label anywhere in the text, in the order yes, no, maybe, then the others."""
    answer = cut_thought(text).lower()
    first = [label for label in SEED_ORDER if label in labels]
    for label in [*first, *labels]:
        if label.lower() in answer:
            return label
    return UNKNOWN


PARSERS: dict[str, Parse] = {"word": parse_word, "substring": parse_substring}


class _Hit(NamedTuple):
    label: str
    start: int
    end: int


def _find(text: str, labels: Sequence[str]) -> Iterator[_Hit]:
    """Yield the labels that are whole words. A shorter label within a longer one does not count."""
    for label in sorted(labels, key=len, reverse=True):
        pattern = _pattern(label.lower())
        for hit in pattern.finditer(text):
            yield _Hit(label, *hit.span())
        text = pattern.sub(lambda match: "\0" * len(match[0]), text)


def _begins_a_clause(text: str, start: int) -> bool:
    """True if no word is before `start` in its line."""
    while start and text[start - 1].isspace():
        start -= 1
        if text[start] == "\n":
            return True
    return not re.match(r"\w", text[max(0, start - 1) : start])


def _pattern(label: str) -> re.Pattern[str]:
    text = re.escape(label)
    if HAN.search(label):  # words are not spaced: a label stands alone, or after 答案是 and the like
        return re.compile(
            f"(?:(?<!{HAN.pattern})|{ZH_LEAD})({text})(?=的?(?:$|或|还是|(?!{HAN.pattern}).))", re.DOTALL
        )
    return re.compile(rf"(?<!\w)(?<!\w-){text}(?!-?\w)" + ARTICLE * (label == "no"))
