"""Checks on each row: empty answers, template tokens, control characters, lengths; and keys to compare by."""

import re
from array import array
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from functools import partial, reduce
from hashlib import blake2b
from operator import add

from xxhash import xxh3_64_digest, xxh32_digest

from tuneyard.compiler.check.cleaning import HTML
from tuneyard.compiler.check.text_columns import TextColumns, Texts
from tuneyard.compiler.lint.fingerprints import NO_ID, Fingerprints
from tuneyard.compiler.rows import Batch
from tuneyard.compiler.rows.problems import Problems
from tuneyard.compiler.spec.column_types import MARK
from tuneyard.compiler.spec.model import Spec
from tuneyard.core.errors import Problem, show_value

LONG = 1_000_000
_EMPTY = "- – — nan nat <na> n/a null none <noinput> 无 暂无 待补充 tbd #n/a #ref! #value! #div/0! #name?"
EMPTY = {b"", *_EMPTY.encode().split()}
"""Empty texts, and what people, pandas and spreadsheets write for them or for an error, in small letters."""
_WORD = 1 << 63
# The tokens of LLaMA-Factory's templates in this form. Another `<|…|>` is a text's own, as a list's mark.
_SPECIAL = (
    "system|user|assistant|observation|tool|image|video|audio|img|think|message|channel|return|call|start|end|eos|"
    "eot|eot_id|eom|eom_id|python_tag|endoftext|startoftext|(?:begin|end)_of_(?:text|sentence)|"
    "(?:start|end)_of_role|role_end|(?:start|end)_header_id|header_(?:start|end)|im_[a-z]+|endof[a-z]+|"
    "tool_(?:call|response)_(?:start|end)|[a-z]+_?pad|(?:audio|vision)_(?:bos|eos|start|end)|fim_[a-z]+"
)
TOKENS = re.compile(
    rf"<\|(?:{_SPECIAL})\|>|"
    r"</?s>|\[/?INST\]|<</?SYS>>|<(?:start|end)_of_turn>|<｜[^｜]{1,40}｜>"
)
# An answer that is a program, or a question for one: its tags are meant, and no scraps of a web page.
MARKUP = re.compile(
    r"```|<!doctype|<html|<\?php|html|\bcss\b|\breact\b|jsx|\bvue\b|angular|javascript|\bphp\b|xml|markup|\btags?\b"
    r"|\bweb ?(?:page|site|app|form)|网页|标签",
    re.IGNORECASE,
)
# Pictures of Qwen-VL, of Phi, numbered ones, of LLaVA, and tags of a web page.
PICTURE = re.compile(
    r"<img>[^<>]{1,500}</img>|<(?:image|video|audio|img)(?:[ _-]?\d{1,4})?>|"
    r"<\|(?:image|video|audio)_\d{1,4}\|>|<image_?(?:placeholder|here|token)>|"
    r"<img\s[^<>]{1,1000}>",
    re.IGNORECASE,
)
CONTROL = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]")

# Letters of ASCII become small, and each control character becomes NUL. Blanks are left out.
_CONTROLS = bytes([*range(9), 11, 12, *range(14, 32), 127])
_PLAIN = bytes.maketrans(bytes(range(65, 91)) + _CONTROLS, bytes(range(97, 123)) + bytes(len(_CONTROLS)))
_BLANKS = b" \t\r\n"
SEPARATOR = b"\x1e"  # a control character, so that no plain text has it
_PLAIN_SEPARATED = _PLAIN[:30] + SEPARATOR + _PLAIN[31:]


class Lint:
    """Checks every kept row of a spec once, batch by batch, and adds it to a `Fingerprints`."""

    def __init__(self, spec: Spec, problems: Problems) -> None:
        self.spec = spec
        self.problems = problems
        self.texts = TextColumns(spec)
        self.marks = [column.name for column in spec.columns if column.type.compared == MARK]
        if self.texts.label_is_learned:
            self.marks.insert(0, "label")
        placeholders = [column.type.placeholder() for column in spec.columns]
        self.placeholders = list(filter(None, placeholders))

    def see(self, seen: Fingerprints, batch: Batch, numbered: bool) -> None:
        """Check a batch. `numbered`: its ids come from the file, so that they should differ."""
        texts = self.texts.of(batch)
        plain: dict[str, list[bytes]] = {}
        is_suspect = False
        for name, column in texts.items():
            plain[name], is_column_suspect = plain_texts(column)
            is_suspect = is_suspect or is_column_suspect
        if is_suspect:
            for number, row in enumerate(zip(*texts.values(), strict=True)):
                answers_of_row = [texts[name][number] for name in self.texts.answered]
                for code, message in text_warnings(row, answers_of_row, self.placeholders):
                    self._warn(code, batch, number, message)
        lengths = array("I", reduce(partial(map, add), (map(len, column) for column in texts.values())))
        self._warn_of_texts(batch, texts, plain, lengths)
        prompts = [plain[name] for name in self.texts.asked]
        columns: dict[str, Iterable[int]] = {"lengths": lengths}
        if self.spec.group:
            groups = plain.get(self.spec.group)
            if groups is None:
                groups = [repr(value).encode() for value in batch.columns[self.spec.group]]
            columns["groups"] = keys_of_texts(groups)
        answers = self._answers(batch, plain)
        columns["prompts"] = keys_of_texts(_joined(prompts, len(batch)))
        columns["answers"] = short_keys_of_texts(_joined(answers, len(batch)))
        if "idx" in batch.columns and not self.spec.share:
            columns["ids"] = keys_of_ids(batch.columns["idx"] if numbered else [None] * len(batch))
        split = self.spec.split
        if split and split.group:
            columns["units"] = map(unit_key, batch.columns[split.group])
        if split and split.by_hash:  # by what is the same in every run
            values = batch.columns[split.group] if split.group else zip(*prompts, strict=True)
            columns["stable"] = [int.from_bytes(_digest(value)) for value in values]
        seen.add(batch.prefix, batch.lines, columns)
        if self.spec.labels and not self.spec.share:
            seen.add_values("labels", batch.columns["label"])
        if split and split.stratify:
            seen.add_values("classes", batch.columns[split.stratify])
        if self.spec.near:
            seen.texts += map("\n".join, zip(*(texts[name] for name in self.texts.asked), strict=True))

    def _answers(self, batch: Batch, plain: Mapping[str, list[bytes]]) -> list[list[bytes]]:
        """The columns that are the answer of a row: texts, the label, marks."""
        answers = [plain[name] for name in self.texts.answered]
        for name in self.marks:
            text_by_value = {value: _written(value) for value in set(batch.columns[name])}
            answers.append(list(map(text_by_value.__getitem__, batch.columns[name])))
        return answers

    def _warn_of_texts(
        self,
        batch: Batch,
        texts: Mapping[str, Texts],
        plain: Mapping[str, list[bytes]],
        lengths: Sequence[int],
    ) -> None:
        for name in self.texts.may_be_blank:
            values = batch.columns.get(name, texts[name])
            if not EMPTY.isdisjoint(plain[name]) or None in values:
                for number, text in enumerate(plain[name]):
                    if text in EMPTY or values[number] is None:
                        self._warn("W204", batch, number, "an empty answer would be trained on", name)
        if max(lengths) >= LONG:
            for number, length in enumerate(lengths):
                if length >= LONG:
                    self._warn("W207", batch, number, "a very long row: a million characters or more")

    def _warn(self, code: str, batch: Batch, number: int, message: str, field: str = "") -> None:
        self.problems.warn(Problem(code, batch.place(number), message, field))


def plain_text(text: str) -> bytes:
    """Normalise a text for comparisons: without blanks, its ASCII letters in lower case."""
    return text.encode(errors="surrogatepass").translate(_PLAIN, _BLANKS)


def plain_texts(texts: Texts) -> tuple[list[bytes], bool]:
    """`plain_text` of each text, and if one may have a control character, a token or a tag.

    It is one call for all, unless a text has the separator.
    """
    joined = "\x1e".join(texts).encode(errors="surrogatepass").translate(_PLAIN_SEPARATED, _BLANKS)
    plain = joined.split(SEPARATOR)
    if len(plain) != len(texts):
        return list(map(plain_text, texts)), True
    # one byte is found sooner than several
    return plain, b"\0" in joined or b"<" in joined or (b"]" in joined and b"inst]" in joined)


def text_warnings(
    texts: Sequence[str], answers: Sequence[str], read: Collection[str] = ()
) -> Iterator[tuple[str, str]]:
    """Yield code and message for a row's texts by themselves. `texts` has the answers too.

    `read` are the placeholders for which the row has files, such as `<image>`.
    """
    control = _first_match(CONTROL, texts)
    if control:
        yield "W206", f"a control character: {control}"
    token = _first_match(TOKENS, [text for text in texts if "<" in text or "INST]" in text])
    if token:
        yield "W205", f"a token of a chat template inside the text: {token}"
    tag = _first_match(HTML, [text for text in answers if "<" in text])
    picture = _lost_picture(texts, read)
    if (tag or picture) and not any(map(MARKUP.search, texts)):
        if tag:
            yield "W214", f"HTML in an answer: {tag}"
        if picture:
            yield "W226", f"a picture, video or audio named in a text, which is learned as text: {picture}"


def _lost_picture(texts: Sequence[str], read: Collection[str]) -> str:
    """The first picture, video or audio in the texts that the model would get as its name, "" without one."""
    for text in texts:
        for match in PICTURE.finditer(text) if "<" in text else ():
            is_tag_without_file = match[0][4:5].isspace() and "src" not in match[0].lower()
            if match[0] not in read and not is_tag_without_file:
                return show_value(match[0])
    return ""


def _first_match(pattern: re.Pattern[str], texts: Iterable[str]) -> str:
    """The first match of the pattern for a message, "" without one."""
    for text in texts:
        match = pattern.search(text)
        if match:
            return show_value(match[0])
    return ""


def _joined(columns: Sequence[list[bytes]], rows: int) -> list[bytes]:
    """The plain texts of each row's columns as one."""
    if not columns:
        return [b""] * rows
    if len(columns) == 1:
        return columns[0]
    return list(map(SEPARATOR.join, zip(*columns, strict=True)))


def keys_of_texts(texts: Iterable[bytes]) -> "array[int]":
    """XXH3 of each text: 8 bytes, the same in every process."""
    return array("q", b"".join(map(xxh3_64_digest, texts)))


def short_keys_of_texts(texts: Iterable[bytes]) -> "array[int]":
    """XXH32 of each text: 4 bytes."""
    return array("I", b"".join(map(xxh32_digest, texts)))


def keys_of_ids(values: Sequence[object]) -> "array[int]":
    """8 bytes for each value, `NO_ID` for None. Whole numbers are their own keys, in any type."""
    try:
        return array("q", values)  # type: ignore[arg-type]  # raises for anything but numbers of 8 bytes
    except (TypeError, OverflowError):
        return array("q", map(_id_key, values))


def _id_key(value: object) -> int:
    number = NO_ID if value is None else _whole(value)
    if isinstance(number, int) and -_WORD <= number < _WORD:
        return number
    return unit_key(value)


def unit_key(value: object) -> int:
    """Hash a value that groups rows: 8 bytes, the same in every process, equal for equal numbers."""
    return int.from_bytes(xxh3_64_digest(_written(value)), signed=True)


def _written(value: object) -> bytes:
    """A value as text, the same for equal numbers."""
    return repr(_whole(value)).encode()


def _whole(value: object) -> object:
    """A number without fraction becomes an `int`; any other value stays."""
    if isinstance(value, bool) or (isinstance(value, float) and value.is_integer()):
        return int(value)
    return value


def _digest(value: object) -> bytes:
    """Hash a value to 8 bytes by which splits are drawn: another hash would draw other ones."""
    return blake2b(repr(value).encode(), digest_size=8).digest()
