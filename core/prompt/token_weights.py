"""Key-token weights of a recipe: rules over the text of answers, which give each token of the loss a weight.

A rule is a regular expression (its first group, otherwise the whole match), a list of words, or a field of
the answer's template. If rules overlap, the last one counts.
"""

import itertools
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tuneyard.core.documents import read_mapping
from tuneyard.core.documents.schema_errors import check_file
from tuneyard.core.errors import ContentError, show_value
from tuneyard.core.execution.time_limit import bounded
from tuneyard.core.files import read_object
from tuneyard.core.installation.checkout import ROOT
from tuneyard.core.prompt.supervision import IGNORED

SCHEMA = ROOT / "recipes/weights/schema.json"
Decode = Callable[[list[int]], str]


@dataclass(frozen=True, slots=True)
class TokenWeights:
    """Rules of one weights file: a pattern (its first group, if any) and the weight of its matches."""

    default: float
    rules: tuple[tuple[re.Pattern[str], float], ...]

    def of_answer(self, ids: Sequence[int], decode: Decode) -> list[float]:
        """One weight for each token of an answer. One shared character counts as a match."""
        spans = list(token_spans(ids, decode))
        text = "".join(piece for _, _, piece in spans)
        weights = [self.default] * len(ids)
        for pattern, weight in self.rules:
            with bounded(f"weights file: the rule {show_value(pattern.pattern)} on an answer"):
                matches = list(pattern.finditer(text))
            for match in matches:
                start, stop = match.span(1 if pattern.groups else 0)
                for index, (first, last, _) in enumerate(spans):
                    if first < stop and last > start:
                        weights[index] = weight
        return weights

    def of_labels(self, labels: Sequence[int], decode: Decode) -> list[float]:
        """One weight for each label. Every stretch of loss tokens is an answer; the rest weighs 0."""
        weights: list[float] = []
        for trained, stretch in itertools.groupby(labels, IGNORED.__ne__):
            ids = list(stretch)
            weights += self.of_answer(ids, decode) if trained else [0.0] * len(ids)
        return weights


def token_spans(ids: Sequence[int], decode: Decode) -> Iterator[tuple[int, int, str]]:
    """Yield each token's begin and end in the decoded text, and the characters that it adds.

    Parts of one character (UTF-8) share its span, and the last adds it. Decoding starts one token back,
    since some tokenizers drop the space of the first token.
    """
    position, before, waiting = 0, 0, 0
    for index in range(len(ids)):
        if index < waiting:
            continue
        stop = index + 1
        text_before = decode(list(ids[before:index]))
        text = decode(list(ids[before:stop]))
        while text.endswith("\ufffd") and stop < min(len(ids), index + 4):
            stop += 1
            text = decode(list(ids[before:stop]))
        added = text[len(text_before) :]
        for part in range(index, stop):
            yield position, position + len(added), added if part == stop - 1 else ""
        position += len(added)
        before, waiting = index, stop


def weights_file(recipe: Path) -> Path | None:
    """Find the weights of a recipe, weights/NAME.yaml next to it. None without."""
    path = recipe.parent / "weights" / recipe.name
    if not path.is_file():
        return None
    return path


def weights_of(recipe: Path) -> TokenWeights | None:
    """Read the weights of a recipe; None without."""
    path = weights_file(recipe)
    if path is None:
        return None
    return read_weights(path)


def read_weights(path: Path) -> TokenWeights:
    """Read a weights file. `ContentError` names the wrong rule, its value and the expected value."""
    value: dict[str, Any] = read_mapping(path, "weights file")
    check_file(path, read_object(SCHEMA), value)
    rules = []
    for number, rule in enumerate(value["rules"]):
        rules.append((_pattern(rule, f"{path}: rules.{number}"), float(rule["weight"])))
    return TokenWeights(float(value.get("default", 1.0)), tuple(rules))


def _pattern(rule: dict[str, Any], place: str) -> re.Pattern[str]:
    if "words" in rule:
        longest_first = sorted(rule["words"], key=len, reverse=True)
        expression = r"(?<!\w)(?:" + "|".join(re.escape(word) for word in longest_first) + r")(?!\w)"
    else:
        expression = rule["regex"] if "regex" in rule else _in_template(rule["field"], rule["in"], place)
    try:
        return re.compile(expression, re.DOTALL if "field" in rule else 0)
    except re.error as error:
        wrong = f"{place}: {show_value(rule['regex'])} is no regular expression: {error}"
        raise ContentError(wrong) from error


def _in_template(field: str, template: str, place: str) -> str:
    """Regular expression for a field's text in an answer that follows the template."""
    parts = re.split(r"\{(\w+)\}", template)  # texts and, between them, the names of fields
    if field not in parts[1::2]:
        expected = f"expected the answer's template with {{{field}}}"
        raise ContentError(f"{place}: in: found {show_value(template)}, {expected}")
    pieces = [re.escape(part) for part in parts]
    pieces[1::2] = ["(?:.*?)"] * (len(parts) // 2)
    pieces[2 * parts[1::2].index(field) + 1] = "(.*?)"
    return "".join(pieces) + "$" * (not parts[-1])
