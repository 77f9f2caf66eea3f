"""Generated text to one of the labels, or `unknown`: as a word, or as the published script searched.

The word parser takes an answer that names exactly one label as a whole word: `not` and `know` are no
`no`, a negated label is none, and a refusal or two different labels are `unknown`. The substring
parser takes the first label that occurs anywhere; results were published with it.
"""

import re
from collections.abc import Callable, Sequence

from eval.measure.labels import UNKNOWN

Parse = Callable[[str, Sequence[str]], str]

SEED_ORDER = ("yes", "no", "maybe")
THOUGHT = re.compile(r"\A.*</think>|<think>.*\Z", re.DOTALL)  # its beginning may stand in the prompt
HAN = re.compile(r"[㐀-鿿]")
ZH_LEAD = "|".join(
    f"(?<={lead})" for lead in ("答案是", "答案为", "回答是", "结论是", "判断为", "选择", "我")
)
NEGATION = re.compile(r"\b(?:not|never|neither|nor|n[o']t|isn't|wasn't|than)\s+(?:an?\s+|the\s+)?[\"'“‘*]*$")
REFUSAL = re.compile(
    r"\bi(?:'m| am) (?:sorry|unable|not able)|\bi (?:can(?:'t|not| not)|won't|will not|refuse)\b"
    r"|\bi do(?: not|n't) know\b|\bas an ai\b|抱歉|无法(?:回答|判断|提供)|不能回答|我不知道"
)


def cut_thought(text: str) -> str:
    """Return the answer without its <think> part (an unfinished thought leaves nothing)."""
    return THOUGHT.sub("", text).strip()


def parse_word(text: str, labels: Sequence[str]) -> str:
    """Return the one label that the text gives as a whole word, else `unknown`."""
    rest = cut_thought(text).lower().replace("’", "'")
    refusal = REFUSAL.search(rest)
    found = set()
    for label in sorted(labels, key=len, reverse=True):
        pattern = _pattern(label)
        for hit in pattern.finditer(rest):
            if NEGATION.search(rest[: hit.start()]) or (refusal and refusal.start() < hit.start()):
                return UNKNOWN
            found.add(label)
        rest = pattern.sub(lambda m: "\0" * len(m[0]), rest)  # a shorter label inside it is none
    return found.pop() if len(found) == 1 else UNKNOWN


def parse_substring(text: str, labels: Sequence[str]) -> str:
    """Return the first label found anywhere in the text: yes, no, maybe, then the others as given."""
    said = cut_thought(text).lower()
    order = [x for x in SEED_ORDER if x in labels] + [x for x in labels if x not in SEED_ORDER]
    return next((label for label in order if label.lower() in said), UNKNOWN)


PARSERS: dict[str, Parse] = {"word": parse_word, "substring": parse_substring}


def _pattern(label: str) -> re.Pattern[str]:
    text = re.escape(label.lower())
    if HAN.search(label):  # words are not spaced: a label stands alone, or after 答案是 and the like
        return re.compile(
            f"(?:(?<!{HAN.pattern})|{ZH_LEAD})({text})(?=的?(?:$|(?!{HAN.pattern}).))", re.DOTALL
        )
    return re.compile(rf"(?<!\w){text}(?!\w)")
