"""A sequence of tokens as blocks of the page: role, kind of content, text, and spans of tokens."""

import re
from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any, NamedTuple

from tuneyard.compiler.view.encoding import TEXT, EncodedMessage, Segment, TokenSequence
from tuneyard.compiler.view.payload import CUT, LEARNED, PageBlock, PageSide, TokenSpan
from tuneyard.core.llamafactory.prompt.template_match import Writing
from tuneyard.core.llamafactory.prompt.token_texts import TokenTexts

CONTENT = "{{content}}"
TEMPLATE = "template"
"""Role of the text that a template writes around messages."""
PARTS = {"function": "tool_call", "observation": "tool_result"}
"""Kinds of content by role; other roles have text."""
Piece = tuple[int, str, str]
"""First character in a text, role and part of what begins there."""


class _Slot(NamedTuple):
    """The text that a template writes before and after a message."""

    before: str
    after: str


class PageBlocks:
    """Writes sequences as blocks of the page, by the slots of one template."""

    def __init__(self, template: Any, tokenizer: Any) -> None:
        self.template = template
        decode = partial(tokenizer.decode, skip_special_tokens=False, clean_up_tokenization_spaces=False)
        self.texts = TokenTexts(decode)
        plugin = template.mm_plugin
        media = [getattr(plugin, f"{kind}_token", None) for kind in ("image", "video", "audio")]
        media_tokens = [re.escape(token) for token in media if token]
        self.media = re.compile(f"(?:{'|'.join(media_tokens)})+") if media_tokens else None
        first, last = map(str.strip, template.thought_words)
        self.thought = re.compile(f"{re.escape(first)}.*?{re.escape(last)}\\s*", re.DOTALL)
        self.writing = Writing()
        self.writing.bos_token_id, self.writing.eos_token_id = tokenizer.bos_token, tokenizer.eos_token

    def side(
        self,
        sequence: TokenSequence,
        losses: Sequence[float | None] | None,
        weights: Sequence[float] | None,
    ) -> PageSide:
        """One side of a row. `losses` and `weights` are those of the tokens that are trained on."""
        token_texts = self.texts.of(sequence.ids)
        loss_of_token, weight_of_token = iter(losses or ()), iter(weights or ())
        blocks: list[PageBlock] = []
        texts_of_blocks: list[list[str]] = []  # joined at the end: a row may have a million tokens
        position = 0
        for segment in sequence.segments:
            end = position + len(segment.ids)
            segment_texts = token_texts[position:end]
            pieces = list(self._pieces(segment, segment_texts))
            number, start = 0, 0
            for text, state in zip(segment_texts, sequence.states[position:end], strict=True):
                while number + 1 < len(pieces) and pieces[number + 1][0] <= start:
                    number += 1
                _unused, role, part = pieces[number]
                if not blocks or (blocks[-1].role, blocks[-1].part) != (role, part):
                    blocks.append(PageBlock(role, part, ""))
                    texts_of_blocks.append([])
                block = blocks[-1]
                texts_of_blocks[-1].append(text)
                span: TokenSpan = (len(text), state)
                if state != CUT:
                    loss, weight = next(loss_of_token, None), next(weight_of_token, None)
                    if loss is not None:
                        loss = round(loss, 3)
                    if weight is not None and state == LEARNED:
                        span = (len(text), state, loss, weight)
                    elif loss is not None:
                        span = (len(text), state, loss)
                block.spans.append(span)
                start += len(text)
            position = end
        for block, block_texts in zip(blocks, texts_of_blocks, strict=True):
            block.text = "".join(block_texts)
        return PageSide(sequence.name, sequence.mark, blocks)

    def _pieces(self, segment: Segment, texts: Sequence[str]) -> Iterator[Piece]:
        """The pieces of a segment in their order. The first begins at 0."""
        yield 0, TEMPLATE, "text"
        begin = 0  # token
        for number, message in enumerate(segment.messages):
            begin = _position_of(segment.ids, message.ids, begin)
            if begin < 0:
                yield 0, message.role, "text"
                return
            end = begin + len(message.ids)
            offset = sum(map(len, texts[:begin]))
            if begin and segment.is_answer and number == 0:
                yield 0, message.role, "thought"  # the empty one that the template puts before the answer
            text = "".join(texts[begin:end])
            system = segment.system if number == 0 else None
            for start, role, part in self._pieces_of_message(message, text, system):
                yield offset + start, role, part
            begin = end
        if segment.messages and begin < len(segment.ids):
            offset = sum(map(len, texts[:begin]))
            if segment.is_answer:
                yield offset, TEMPLATE, "text"
            else:
                yield offset, "assistant", "thought"  # an empty one without loss

    def _pieces_of_message(self, message: EncodedMessage, text: str, system: str | None) -> Iterator[Piece]:
        """The pieces of one message: marks of the template, a system text, the content by its kinds."""
        if message.role == TEXT:
            yield 0, TEXT, "text"
            return
        slot = self._slot(message.role)
        start, end = _content(message, text, slot)
        yield 0, TEMPLATE, "text"
        if system is not None:
            yield from self._pieces_of_system(text[:start], system, slot)
        if start < end:
            yield from self._pieces_of_content(message.role, text[start:end], start)
        yield end, TEMPLATE, "text"

    def _pieces_of_system(self, head: str, system: str, user_slot: _Slot) -> Iterator[Piece]:
        """The system text, with the tools that the template writes into it, if `head` has one."""
        head = head.removesuffix(user_slot.before)
        prefix = self._written(self.template.format_prefix.slots)
        slot = self._slot("system")
        before = prefix + slot.before
        start = len(before)
        end = len(head) - len(slot.after)
        is_there = head.startswith(before) and head.endswith(slot.after) and start < end
        if not is_there:  # in the user's turn, with some templates
            start = head.find(system) if system else -1
            end = len(head)
            is_there = start >= 0
        if is_there:
            yield start, "system", "text"
            yield end, TEMPLATE, "text"

    def _pieces_of_content(self, role: str, content: str, offset: int) -> Iterator[Piece]:
        """A message's own text: thoughts, media, and the rest."""
        part = PARTS.get(role, "text")
        others: list[tuple[int, int, str]] = []
        if role in ("assistant", "function"):
            others += [(*match.span(), "thought") for match in self.thought.finditer(content)]
        if self.media:
            others += [(*match.span(), "image") for match in self.media.finditer(content)]
        yield offset, role, part
        for start, end, other_part in sorted(others):
            yield offset + start, role, other_part
            yield offset + end, role, part

    def _slot(self, role: str) -> _Slot:
        formatter = getattr(self.template, f"format_{role}")
        before, _unused, after = self._written(formatter.slots).partition(CONTENT)
        return _Slot(before, after)

    def _written(self, slots: Sequence[Any]) -> str:
        """Text of the slots of a template, in which sets and objects name special tokens."""
        return "".join(self.template._convert_elements_to_ids(self.writing, slots))


def _position_of(ids: Sequence[int], message_ids: Sequence[int], begin: int) -> int:
    """The first place from `begin` on at which the tokens of a message are, -1 if nowhere."""
    length = len(message_ids)
    for position in range(begin, len(ids) - length + 1):
        if ids[position : position + length] == message_ids:
            return position
    return -1


def _content(message: EncodedMessage, text: str, slot: _Slot) -> tuple[int, int]:
    """First and last (excluded) character of a message's content in the text that the template wrote."""
    content = message.content
    end = len(text) - len(slot.after)
    if slot.after and not text.endswith(slot.after):
        end = len(text)
    if message.role != "function":  # of which the template writes the calls in its own form
        start = end - len(content)
        if start >= 0 and text[start:end] == content:
            return start, end
        start = text.rfind(content)  # the tokenizer writes blanks in its own way, or the template trims
        if content and start >= 0:
            return start, start + len(content)
    return (len(slot.before) if text.startswith(slot.before) else 0), end
