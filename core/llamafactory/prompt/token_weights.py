"""Key-token weights of a recipe: rules over the text of answers, which give each token of the loss a weight.

A rule is a regular expression (its first group, otherwise the whole match), a list of words, or a field of
the answer's template. If rules overlap, the last one counts.
"""

import itertools
import re
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from tuneyard.core.documents import read_mapping
from tuneyard.core.documents.schema_errors import check_file
from tuneyard.core.errors import ContentError, bounded, show_value, unexpected
from tuneyard.core.files import JsonObject, read_object
from tuneyard.core.installation.checkout import ROOT
from tuneyard.core.language.message import _, relative
from tuneyard.core.llamafactory.prompt import Ids
from tuneyard.core.llamafactory.prompt.supervision import IGNORED
from tuneyard.core.llamafactory.prompt.token_texts import Decode, TokenTexts

SCHEMA = ROOT / "core/schemas/token_weights.json"


class TokenWeights(NamedTuple):
    """Rules of one weights file: a pattern (its first group, if any) and the weight of its matches."""

    default: float
    rules: tuple[tuple[re.Pattern[str], float], ...]

    def of_answer(self, ids: Ids, decode: Decode) -> list[float]:
        """One weight for each token of an answer. One shared character counts as a match."""
        texts = TokenTexts(decode).of(ids)
        text, spans = "".join(texts), token_spans(texts)
        weights = [self.default] * len(ids)
        for pattern, weight in self.rules:
            with bounded(f"weights file: the rule {show_value(pattern.pattern)} on an answer"):
                matches = list(pattern.finditer(text))
            for match in matches:
                start, stop = match.span(1 if pattern.groups else 0)
                for index, (first, last) in enumerate(spans):
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


def token_spans(texts: Sequence[str]) -> list[tuple[int, int]]:
    """Each token's begin and end in the joined texts. Tokens that share a character share its span."""
    spans: list[tuple[int, int]] = []
    position = waiting = 0
    for text in texts:
        waiting += 1
        if text:
            spans += [(position, position + len(text))] * waiting
            position += len(text)
            waiting = 0
    return spans + [(position, position)] * waiting


def weights_file(recipe: Path) -> Path | None:
    """Find the weights of a recipe, weights/NAME.yaml next to it. None without."""
    path = recipe.parent / "weights" / recipe.name
    if not path.is_file():
        return None
    return path


def read_weights(path: Path) -> TokenWeights:
    """Read a weights file. `ContentError` names the wrong rule, its value and the expected value."""
    value: JsonObject = read_mapping(path, _("weights file"))
    check_file(path, read_object(SCHEMA), value)
    rules = []
    for number, rule in enumerate(value["rules"]):
        pattern = _pattern(rule, f"{relative(path)}: rules.{number}")
        rules.append((pattern, float(rule["weight"])))
    return TokenWeights(float(value.get("default", 1.0)), tuple(rules))


def _pattern(rule: JsonObject, place: str) -> re.Pattern[str]:
    if "words" in rule:
        longest_first = sorted(rule["words"], key=len, reverse=True)
        expression = r"(?<!\w)(?:" + "|".join(map(re.escape, longest_first)) + r")(?!\w)"
    else:
        expression = rule["regex"] if "regex" in rule else _in_template(rule["field"], rule["in"], place)
    try:
        return re.compile(expression, re.DOTALL if "field" in rule else 0)
    except re.error as error:
        wrong = _(
            "{place}: {pattern} is no regular expression: {reason}",
            place=place,
            pattern=show_value(rule["regex"]),
            reason=error,
        )
        raise ContentError(wrong) from error


def _in_template(field: str, template: str, place: str) -> str:
    """Regular expression for a field's text in an answer that follows the template."""
    parts = re.split(r"\{(\w+)\}", template)  # texts and, between them, the names of fields
    if field not in parts[1::2]:
        raise unexpected(place, "in", template, _("the answer's template with {{{field}}}", field=field))
    pieces = list(map(re.escape, parts))
    pieces[1::2] = ["(?:.*?)"] * (len(parts) // 2)
    pieces[2 * parts[1::2].index(field) + 1] = "(.*?)"
    return "".join(pieces) + "$" * (not parts[-1])
