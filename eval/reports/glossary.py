"""What the terms of the tables and verdicts mean: one list, which the page shows and has as hover text."""

import html
import re
from collections.abc import Collection, Iterator

from core.language import tr

GLOSSARY = {
    "accuracy": "The share of examples that a model answers correctly.",
    "macro-F1": "The unweighted mean over labels of the harmonic mean of precision and recall.",
    "95 % interval": "Where the value would lie for other examples of the same kind, 95 times of 100.",
    "majority-class baseline": "The accuracy of always giving the commonest expected answer.",
    "mean": "The mean of the accuracies on all datasets, each dataset counting alike.",
    "difference, points": "The accuracy of the first model less that of the second, in percentage points.",
    "fixed": "Examples that the second model, or the base, has incorrect and the first correct.",
    "regressed": "Examples that the second model, or the base, has correct and the first incorrect.",
    "p": "How often chance alone gives a difference as large, in any of the comparisons made together.",
    "minimum detectable effect": "The least difference, in points, that these examples show with 80 % power.",
    "statistically tied": "No significant difference at 5 % here, which does not show them to be equal.",
    "drawn towards their mean": "Corrected for having been chosen as the best of several.",
    "confidence": "The probability of the label that was chosen, out of that of all labels.",
    "calibration": "How well a model's confidence agrees with its accuracy.",
    "ECE": "Expected calibration error: the mean distance between confidence and accuracy.",
    "95th percentile if calibrated": "The ECE that a perfectly calibrated model exceeds 5 times of 100.",
    "unparsed": "Answers in which no label was found; they count as incorrect.",
    "clusters": "Examples that share a text and are not independent; tests keep them together.",
}
IN_PROSE = ("statistically tied", "minimum detectable effect", "drawn towards their mean")


def terms() -> Iterator[tuple[str, str]]:
    """Yield each term and what it means, in the current language."""
    yield from ((tr(term), tr(meaning)) for term, meaning in GLOSSARY.items())


def explained(escaped: str, only: Collection[str] = GLOSSARY) -> str:
    """Return escaped text in which every one of the terms has its meaning as hover text."""
    meanings = {tr(term): tr(GLOSSARY[term]) for term in only}
    longest_first = sorted(map(html.escape, meanings), key=len, reverse=True)
    pattern = rf"(?<![A-Za-z_])(?:{'|'.join(map(re.escape, longest_first))})(?![A-Za-z_])"

    def abbreviation(found: re.Match[str]) -> str:
        meaning = html.escape(meanings[html.unescape(found[0])])
        return f'<abbr title="{meaning}">{found[0]}</abbr>'

    return re.sub(pattern, abbreviation, escaped)
