"""Texts of rows: which columns a model reads (asked) and learns (answered), which rows stay by them.

And the changes to values that a spec may ask for (`clean:`, `wrap:`, `labels:`); none is made otherwise.
"""

import html
import json
import re
import unicodedata
from collections import Counter
from collections.abc import Callable, Sequence
from functools import partial
from typing import cast

import orjson

from tuneyard.compiler.kinds import ANSWERED, ASKED, kind_of
from tuneyard.compiler.kinds.turns import Turn
from tuneyard.compiler.rows import MISSING, Batch
from tuneyard.compiler.spec import TOOLS, Filter, Spec
from tuneyard.core.han import HAN

Texts = list[str]
SMALLEST, LARGEST = -(1 << 63), (1 << 64) - 1  # what orjson writes
Values = list[object]
_TAGS = "a|p|b|i|em|strong|ul|ol|li|code|pre|blockquote|div|span|h[1-6]|table|tr|td|th|sub|sup"
HTML = re.compile(rf"</(?:{_TAGS})>|<(?:br|hr) ?/?>|<p>", re.IGNORECASE)  # `List<a>` is none
_ENDS = dict.fromkeys(
    ("p", "ul", "ol", "pre", "blockquote", "table", *(f"h{n}" for n in range(1, 7))), "\n\n"
)
_ENDS |= dict.fromkeys(("br", "hr", "li", "tr", "div"), "\n")
_HAN = re.compile(f"[{HAN}]")
_ASCII = re.compile("[A-Za-z]")


class TextColumns:
    """Names and fetches the texts of a spec's first output; labels are no texts."""

    def __init__(self, spec: Spec) -> None:
        self.spec = spec
        self.turns, kinds = spec.turns, spec.kinds
        answered = spec.outputs[0].columns_of("output", "assistant")
        self.label_is_learned = "label" in answered and bool(spec.labels)
        self.asked = spec.outputs[0].columns_of("instruction", "input", "system", "user", "text")
        self.answered = [name for name in answered if name != "label" or not spec.labels]
        self.may_be_blank = [name for name in self.answered if kinds[name] == "answer"]
        if self.turns:
            self.asked, self.answered, self.may_be_blank = ["asked"], ["answered"], ["answered"]
        beside = [name for name in kinds if name in ("system", TOOLS) and name not in self.asked]
        self.asked += [name for name in beside if self.turns or name in spec.written_by(spec.outputs[0])]
        compared = {name: kind_of(kind).compared for name, kind in kinds.items()}
        self.pair = [name for name, part in compared.items() if part == ANSWERED]
        if self.pair:
            self.answered, self.may_be_blank = self.pair, []
        self.asked += [name for name, part in compared.items() if part == ASKED]

    def of(self, batch: Batch) -> dict[str, Texts]:
        """Return the texts of a batch by name: what is asked, then what is to be learned."""
        own: dict[str, Texts] = {}
        if self.turns:
            talks = cast("list[list[Turn]]", batch.columns[self.turns])
            own["asked"] = ["\n".join(t.text for t in talk[: None if self.pair else -1]) for talk in talks]
            own |= {} if self.pair else {"answered": [talk[-1].text for talk in talks]}
        columns = [name for name in (*self.asked, *self.answered) if name not in own]
        texts = own | {name: as_texts(self.spec, name, batch.columns[name]) for name in columns}
        return {name: texts[name] for name in (*self.asked, *self.answered)}


def stand_ins(spec: Spec) -> dict[str, str]:
    """Return by column the one that asks alone where it is empty: the input of alpaca for its instruction.

    LLaMA-Factory joins what is filled of the two. {} where a template has other words than the column's.
    """
    bare = {f"{{{name}}}": name for name in spec.kinds}
    keys = ("instruction", "input")
    asked = {tuple(bare.get(o.templates.get(key, ""), "") for key in keys) for o in spec.outputs}
    name, other = asked.pop() if len(asked) == 1 else ("", "")
    return {name: other} if name and other else {}


def as_texts(spec: Spec, name: str, values: list[object]) -> Texts:
    """Return a column as texts, whatever is in it."""
    kind = spec.kinds[name]
    checked = kind_of(kind).is_text or (kind == "label" and spec.labels)
    return cast("Texts", values) if checked else list(map(written, values))


def written(value: object) -> str:
    """Return a text as it is, and any other value as JSON has it: `true`, `1.5`, `null`, `["x"]`."""
    if isinstance(value, str):
        return value
    text = orjson.dumps(value).decode()
    return str(orjson.loads(text)) if text[0] == '"' else text  # a date


def writable(value: object) -> bool:
    """Whether JSON can hold a value: no bytes, no NaN, not nested too deep, no rounded number."""
    try:
        text = json.dumps(value, allow_nan=False, default=lambda other: orjson.dumps(other).decode())
        json.loads(text, parse_float=_unrounded)
        orjson.dumps(value)
    except (TypeError, ValueError, RecursionError):
        return False
    return True


def _unrounded(number: str) -> None:
    """Refuse a number that may have lost digits: orjson reads whole ones above 64 bits as fractions."""
    if abs(float(number)) > LARGEST:
        raise ValueError(number)


def numbers_in(values: Sequence[object], before: str | None) -> list[object]:
    """Return text cells as whole numbers where all are written as such, and none is too large for JSON.

    `before` is what the column holds in the rows before: text stays, beside numbers each cell counts alone.
    """
    try:
        numbers = [int(cast("str", value)) for value in values]
        small = min(numbers) >= SMALLEST and max(numbers) <= LARGEST
        if before != "text" and small and list(map(str, numbers)) == list(values):
            return cast("list[object]", numbers)
    except ValueError:
        pass
    alone = before == "a number" and len(values) > 1
    return [number for value in values for number in numbers_in([value], None)] if alone else list(values)


class Sieve:
    """Applies a filter to batches and counts what falls through, by reason."""

    def __init__(self, spec: Spec) -> None:
        self.wanted = wanted = spec.filter
        self.texts = TextColumns(spec)
        self.dropped = Counter[str]()
        self._keywords = _pattern(wanted.keywords)
        self._fields = [pattern for field in wanted.fields if (pattern := _pattern(field))]

    def sift(self, batch: Batch) -> Batch:
        """Return the rows of a batch that stay."""
        if self.wanted == Filter():
            return batch
        kept = []
        for number, texts in enumerate(zip(*self.texts.of(batch).values(), strict=True)):
            if reason := self._reason("\n".join(texts)):
                self.dropped[reason] += 1
            else:
                kept.append(number)
        return batch if len(kept) == len(batch) else batch.keep(kept)

    def _reason(self, text: str) -> str:
        wanted = self.wanted
        if len(text) < wanted.min:
            return "too short"
        if wanted.max is not None and len(text) > wanted.max:
            return "too long"
        if self._keywords and not self._keywords.search(text):
            return "no keyword"
        counts = [len(field.findall(text)) for field in self._fields]
        if counts and counts.index(max(counts)) != wanted.place:  # of equals the first
            return "more keywords of another part"
        return "another language" if wanted.language and not speaks(wanted.language, text) else ""


def speaks(language: str, text: str) -> bool:
    """Tell the language by script: zh where 3 letters of 10 are Han, en where 9 of 10 are ASCII."""
    letters = sum(map(str.isalpha, text))
    if language == "zh":
        return len(_HAN.findall(text)) >= 0.3 * letters > 0
    return len(_ASCII.findall(text)) >= 0.9 * letters > 0


def _pattern(keywords: Sequence[str]) -> re.Pattern[str] | None:
    """Return a pattern of whole words (Chinese has no spaces: there a part of the text is enough)."""
    if not keywords:
        return None
    before = {word: r"(?<![A-Za-z0-9])" if word[0].isascii() else "" for word in keywords}
    after = {word: r"(?![A-Za-z0-9])" if word[-1].isascii() else "" for word in keywords}
    words = [f"{before[word]}{re.escape(word)}{after[word]}" for word in keywords]
    return re.compile("|".join(words), re.IGNORECASE)


def without_html(text: str) -> str:
    """Return a text without its tags and entities, its blocks set apart; one without tags stays as it is."""
    if not HTML.search(text):
        return text
    from lxml import etree
    from lxml.html import fragment_fromstring

    root = fragment_fromstring(text, create_parent="div")
    etree.strip_elements(root, etree.Comment, "script", "style", with_tail=False)
    for node in root.iterdescendants():
        if node.tag == "li":
            node.text = f"- {node.text or ''}"
        if node.tag in _ENDS:
            node.tail = _ENDS[node.tag] + (node.tail or "").lstrip("\n")
    return re.sub(r"\n{3,}", "\n\n", root.text_content()).strip()


STEPS: dict[str, Callable[[str], str]] = {
    "nfc": partial(unicodedata.normalize, "NFC"),
    "strip": str.strip,
    "unescape": html.unescape,
    "html": without_html,
}


def cleaner(steps: Sequence[str]) -> Callable[[Values], Values]:
    """Return a function that makes these changes, in order, to every text of a column."""
    changes = [STEPS[step] for step in steps]

    def clean(values: Values) -> Values:
        for change in changes:
            values = [change(value) if isinstance(value, str) else value for value in values]
        return values

    return clean


def wrapped(wrap: str, values: Values) -> Values:
    """Return texts with what stands around `{}` put around them; empty texts stay empty."""
    if wrap == "{}":
        return values
    before, _, after = wrap.partition("{}")
    return [f"{before}{value}{after}" if value else value for value in values]


def label_keys(spec: Spec) -> dict[object, object]:
    """Return the key of a raw label → what we write; numbers also as tables have them: 1, 1.0 and "True"."""
    pairs = [(raw, ours) for ours, raws in spec.labels.items() for raw in raws]
    keys = keys_of([raw for raw, _ in pairs])
    numbers = [(raw, ours) for raw, ours in pairs if not isinstance(raw, str)]
    cells: dict[object, object] = {text: ours for raw, ours in numbers for text in _as_cells(raw)}
    return cells | {key: ours for key, (_, ours) in zip(keys, pairs, strict=True)}


def _as_cells(raw: object) -> tuple[str, ...]:
    if isinstance(raw, bool):
        return str(raw), str(raw).lower(), str(raw).upper()
    number = cast("float", raw)
    return (str(int(number)), f"{int(number)}.0") if float(number).is_integer() else (str(number),)


def keys_of(labels: Values) -> Values:
    """Return what labels are looked up by: `true` is 1 to Python; lists and objects are no labels."""
    if set(map(type, labels)) <= {int, float, str}:
        return labels
    known = [label if isinstance(label, int | float | str) else MISSING for label in labels]
    return [(label,) if isinstance(label, bool) else label for label in known]
