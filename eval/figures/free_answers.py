"""Metrics of free answers: exact match, partial match and token F1, in any script, overall and by type.

Exact match and token F1 compare the same tokens. An exact match has a token F1 of 1.

1. Unicode NFKC and case folding: `Ａ` is `a`, `①` is `1`.
2. Punctuation, Chinese too, and white space are dropped. The point between digits (`3.5`), the sign before a
   number and symbols (`+`, `<`, `$`, and `%`) are kept, each symbol as a token.
3. `it's`, `1,000` and `U.S.` are one token each, without the mark inside.
4. Each Chinese or Japanese character is a token. Other letters and digits form words.
5. The articles a, an, the are dropped if a word follows (`Vitamin A` keeps its article).

SQuAD's rule (Rajpurkar et al. 2016, arXiv:1606.05250) also drops signs and points, which makes -5 and 5
equal, and does not split Chinese into characters.
"""

import re
import unicodedata
from collections import Counter
from collections.abc import Sequence

from tuneyard.core.language.han import HAN
from tuneyard.eval.figures import metric, metrics
from tuneyard.eval.figures.accuracy import accuracy_figures
from tuneyard.eval.statistics.rates import Row, Rows, is_answered

LEXICAL = "lexical"  # begins the name of a similarity that sees no meaning
SIMILAR = 0.7  # the 0.5B toolkit's: an answer matches partly above this


class Lexical:
    """The similarity of two texts by their letters: token F1, which sees no meaning in other words."""

    name = f"{LEXICAL}: token F1"

    def score(self, expected: str, answer: str) -> float:
        """Similarity of two texts, 0 to 1."""
        return token_f1(expected, answer)


ANSWERS = ("expected_output", "predicted_output")


@metric("exact_match", needs=ANSWERS, by_command=True, beside_accuracy=False)
def exactly_matching(prediction: Row) -> float:
    """1 for an answer with the tokens of the expected one, whose spelling the prediction then has."""
    return bool(prediction["expected_output"] == prediction["predicted_output"])


@metric("partial_match", needs=(*ANSWERS, "similarity"), by_command=True, beside_accuracy=False)
def partly_matching(prediction: Row) -> float:
    """1 for an answer that matches exactly or is similar to the expected one."""
    is_exact = prediction["expected_output"] == prediction["predicted_output"]
    return bool(is_exact or prediction["similarity"] > SIMILAR)


@metric("token_f1", needs=("token_f1",), by_command=True)
def shared_tokens(prediction: Row) -> float:
    """Token F1 of an answer, as `tuneyard eval qa` writes it."""
    return float(prediction["token_f1"])


def qa_summary(rows: Rows) -> dict[str, object]:
    """Figures of scored rows, and under `types` the figures of each type ({} if no row has a type).

    `accuracy`, `stderr` and `ci95` are those of the exact match: `tuneyard eval compare` reads them.
    `majority` is the majority-class baseline.
    """
    types: dict[str, list[Row]] = {}
    for row in rows:
        if "type" in row:
            types.setdefault(row["type"], []).append(row)
    return {
        **accuracy_figures(rows),
        "majority": commonest([row["expected_output"] for row in rows]),
        "empty": sum(is_answered(row) and not row["predicted_output"] for row in rows),
        **_figures(rows),
        "types": {name: _figures(of_type) for name, of_type in sorted(types.items())},
    }


def _figures(rows: Rows) -> dict[str, dict[str, object]]:
    """Exact match, partial match and token F1. Every exact match is also a partial match."""
    return {
        name: metrics()[name].mean(rows).as_json() for name in ("exact_match", "partial_match", "token_f1")
    }


ARTICLES = {"a", "an", "the"}
IDEOGRAPH = re.compile(rf"[\u3005-\u3007\u3040-\u30ff{HAN}]")
MARK = re.compile(
    r"(?P<joint>(?<=\w)['’](?=\w)|(?<=\d),(?=\d{3}(?!\d))|(?<=\b[^\W\d])\.(?=[^\W\d]\b))"
    r"|(?P<point>(?:(?<=\d)|(?<![\w.]))\.(?=\d))|(?P<sign>(?<![\w.])[-−](?=\.?\d))|[^\w\s]|_"
)


def tokens(text: str) -> list[str]:
    """Tokens for comparing two answers. Only an empty text has none.

    >>> tokens("The capital, it’s 北京！ (−3.5 %)")
    ['capital', 'its', '北', '京', '-3.5', '%']
    """
    folded = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", text).casefold())
    words = IDEOGRAPH.sub(r" \g<0> ", MARK.sub(_without_mark, folded)).split()
    last = len(words) - 1
    kept = [word for place, word in enumerate(words) if word not in ARTICLES or place == last]
    return kept or folded.split()


def exact_match(expected: str, answer: str) -> bool:
    """True if both have the same tokens in the same order."""
    return tokens(expected) == tokens(answer)


def token_f1(expected: str, answer: str) -> float:
    """Harmonic mean of precision and recall over tokens, counted with repetitions.

    0 if no token is shared, 1 for the same tokens in any order.
    """
    expected_tokens, answer_tokens = Counter(tokens(expected)), Counter(tokens(answer))
    total = expected_tokens.total() + answer_tokens.total()
    if not total:
        return 1.0
    return 2 * (expected_tokens & answer_tokens).total() / total


def commonest(answers: Sequence[str]) -> float:
    """Share of rows that the most common answer matches exactly: the majority baseline."""
    return Counter(tuple(tokens(answer)) for answer in answers).most_common(1)[0][1] / len(answers)


def _without_mark(match: re.Match[str]) -> str:
    if match["joint"]:
        return ""
    if match["point"] or match["sign"]:
        return "." if match["point"] else "-"
    mark = match[0]
    kind = unicodedata.category(mark)
    if kind.startswith("M"):  # an accent or a vowel sign belongs to its letter
        return mark
    return f" {mark} " if kind.startswith("S") or mark == "%" else " "
