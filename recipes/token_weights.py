"""Which tokens of an answer weigh what: rules from recipes/weights/NAME.yaml, laid over token ids.

A rule is a regular expression (its first group, else all of it), a list of words, or a field of the answer's
template. Where rules overlap, the last one counts.
"""

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from core.documents import read_mapping
from core.errors import ContentError, show_value
from core.files import read_object
from core.patterns import bounded
from recipes.schema import refusal

IGNORED = -100  # the label of a token that carries no loss
SCHEMA = Path(__file__).with_name("weights") / "schema.json"
Decode = Callable[[list[int]], str]


@dataclass(frozen=True, slots=True)
class Rule:
    """Text that matches `pattern` (its first group, if it has one) weighs `weight`."""

    pattern: re.Pattern[str]
    weight: float


@dataclass(frozen=True, slots=True)
class TokenWeights:
    """The rules of one file over a default weight."""

    default: float
    rules: tuple[Rule, ...]

    def of_answer(self, ids: Sequence[int], decode: Decode) -> list[float]:
        """Return one weight for each token of an answer; a token counts when it shares a character."""
        spans = list(token_spans(ids, decode))
        text = "".join(piece for _, _, piece in spans)
        weights = [self.default] * len(ids)
        for rule in self.rules:
            with bounded(f"weights file: the rule {show_value(rule.pattern.pattern)} on an answer"):
                matches = list(rule.pattern.finditer(text))
            for match in matches:
                start, stop = match.span(1 if rule.pattern.groups else 0)
                for index, (first, last, _) in enumerate(spans):
                    if first < stop and last > start:
                        weights[index] = rule.weight
        return weights

    def of_labels(self, labels: Sequence[int], decode: Decode) -> list[float]:
        """Return one weight for each label; every stretch of loss tokens is an answer, the rest weighs 0."""
        weights = [0.0] * len(labels)
        start = 0
        while start < len(labels):
            stop = start
            while stop < len(labels) and labels[stop] != IGNORED:
                stop += 1
            if stop > start:
                weights[start:stop] = self.of_answer(labels[start:stop], decode)
            start = stop + 1
        return weights


def token_spans(ids: Sequence[int], decode: Decode) -> Iterator[tuple[int, int, str]]:
    """Yield each token's first and last character in the decoded text, and what it adds to the text.

    Parts of one character (UTF-8) share its span, and the last adds it. Decoding starts one token back,
    since some tokenizers drop the space of the first token.
    """
    position, before, waiting = 0, 0, 0
    for index in range(len(ids)):
        if index < waiting:
            continue
        stop = index + 1
        known = decode(list(ids[before:index]))
        text = decode(list(ids[before:stop]))
        while text.endswith("\ufffd") and stop < min(len(ids), index + 4):
            stop += 1
            text = decode(list(ids[before:stop]))
        added = text[len(known) :]
        for part in range(index, stop):
            yield position, position + len(added), added if part == stop - 1 else ""
        position += len(added)
        before, waiting = index, stop


def weights_file(recipe: Path) -> Path | None:
    """Return recipes/weights/NAME.yaml of a recipe (beside it), None where there is none."""
    path = recipe.parent / "weights" / recipe.name
    return path if path.is_file() else None


def read_weights(path: Path) -> TokenWeights:
    """Read a weights file; `ContentError` says which rule is wrong, what was found and expected."""
    value: dict[str, Any] = read_mapping(path, "weights file")
    if wrong := refusal(read_object(SCHEMA), value):
        hint = f"; {wrong.hint}" if wrong.hint else ""
        raise ContentError(f"{path}: {wrong.place or 'the file'}: {wrong.message}{hint}")
    rules = tuple(_rule(rule, f"{path}: rules.{number}") for number, rule in enumerate(value["rules"]))
    return TokenWeights(float(value.get("default", 1.0)), rules)


def _rule(rule: dict[str, Any], place: str) -> Rule:
    if "words" in rule:
        longest_first = sorted(rule["words"], key=len, reverse=True)
        expression = r"(?<!\w)(?:" + "|".join(re.escape(word) for word in longest_first) + r")(?!\w)"
    else:
        expression = rule["regex"] if "regex" in rule else _in_template(rule["field"], rule["in"], place)
    try:
        pattern = re.compile(expression, re.DOTALL if "field" in rule else 0)
    except re.error as error:
        wrong = f"{place}: {show_value(rule['regex'])} is no regular expression: {error}"
        raise ContentError(wrong) from error
    return Rule(pattern, float(rule["weight"]))


def _in_template(field: str, template: str, place: str) -> str:
    """Return the expression that finds a field's text in an answer written as the template says."""
    parts = re.split(r"\{(\w+)\}", template)  # texts and, between them, the names of fields
    if field not in parts[1::2]:
        expected = f"expected the answer's template with {{{field}}}"
        raise ContentError(f"{place}: in: found {show_value(template)}, {expected}")
    pieces = [re.escape(part) for part in parts]
    pieces[1::2] = ["(?:.*?)"] * (len(parts) // 2)
    pieces[2 * parts[1::2].index(field) + 1] = "(.*?)"
    return "".join(pieces) + "$" * (not parts[-1])
