"""Audit of the labels: LLaMA-Factory's own processor on every row, its loss tokens counted and checked.

A second pass without cutoff_len shows the cuts. Template, tokenizer, cuts and masks are LLaMA-Factory's own.
"""

from collections import Counter
from collections.abc import Sequence
from itertools import groupby

from tuneyard.compiler.verify.audit import (
    CUT_ANSWER,
    CUT_END,
    CUT_PROMPT,
    CUT_TEXT,
    ENDLESS_TURN,
    FOREIGN_THOUGHT,
    NOTHING_LEARNED,
    UNPROCESSABLE_MEDIA,
    UNWRITABLE_TOOLS,
    Audit,
    Row,
)
from tuneyard.core.llamafactory.loader import UNPACKED, WHOLE, RecipeData, expected_errors
from tuneyard.core.llamafactory.prompt import Messages
from tuneyard.core.llamafactory.prompt.supervision import IGNORED
from tuneyard.core.llamafactory.prompt.template_match import ending_of
from tuneyard.core.llamafactory.templates import is_reasoning
from tuneyard.core.records import PLACEHOLDERS
from tuneyard.core.records.answers import SAME, answer_codes

PAIRED = ("chosen_", "rejected_")


class AnswersAuditor:
    """Audits the loss tokens of answers (each stage but pt). Each side of a pair counts its own tokens."""

    def __init__(self, data: RecipeData, *, has_media: bool) -> None:
        self.args, self.template, self.tokenizer = data.data_args, data.template, data.module["tokenizer"]
        self.stage = data.stage
        supervised = data.stage == "sft"
        self.answers = 1 if supervised else 2
        self.sides: tuple[str, ...] = ("",)
        if data.stage == "rm":
            self.sides = PAIRED
        self.counts_turns = supervised and not has_media
        self.whole = data.encoder(**WHOLE)
        self.cut = data.encoder(**UNPACKED)
        self.reasons = is_reasoning(self.template)
        self.ending = ending_of(self.template, self.tokenizer)

    def audit(self, rows: Row, start: int) -> Audit:
        """Audit a batch (columns of LLaMA-Factory's rows) whose first row has the number `start`."""
        audit = Audit()
        numbers = []
        for number, (prompt, answers) in enumerate(zip(rows["_prompt"], rows["_response"], strict=True)):
            if len(prompt) % 2 and len(answers) == self.answers:
                numbers.append(number)
        whole = self._encoded(_some(rows, numbers))
        if whole is None:  # LLaMA-Factory stops at one of the rows
            stopped = [number for number in numbers if self._encoded(_some(rows, [number])) is None]
            for number in stopped:
                audit.find(
                    UNPROCESSABLE_MEDIA if _has_media(rows, number) else UNWRITABLE_TOOLS, start + number
                )
            numbers = [number for number in numbers if number not in stopped]
            whole = self._encoded(_some(rows, numbers))
        if not numbers or whole is None:
            return audit
        rows = _some(rows, numbers)
        longest = max(len(ids) for side in self.sides for ids in whole[f"{side}input_ids"])
        # at cutoff_len itself LLaMA-Factory's rounding may already take a token
        encoded = whole
        if longest >= self.args.cutoff_len:
            encoded = self.cut.preprocess_dataset(rows)
        for position, number in enumerate(numbers):
            for code in sorted(self._codes(audit, position, rows, encoded, whole)):
                audit.find(code, start + number)
            if self.counts_turns:
                self._count(audit, start + number, rows["_prompt"][position] + rows["_response"][position])
        return audit

    def _encoded(self, rows: Row) -> Row | None:
        """The ids and labels of rows before the cut, None if LLaMA-Factory stops at one of the rows."""
        try:
            encoded: Row = self.whole.preprocess_dataset(rows)
        except expected_errors():
            return None
        return encoded

    def _codes(self, audit: Audit, position: int, rows: Row, encoded: Row, whole: Row) -> set[str]:
        """Count one row; the codes of its findings. `encoded` is cut to cutoff_len, `whole` is not."""
        codes: set[str] = set()
        if not self.ending:
            codes.add(ENDLESS_TURN)
        prompt, answers = rows["_prompt"][position], rows["_response"][position]
        codes |= answer_codes(self.stage, prompt, answers, mask_history=bool(self.args.mask_history))
        sides = []
        for side in self.sides:
            keys = f"{side}input_ids", f"{side}labels"
            sides.append([table[key][position] for table in (encoded, whole) for key in keys])
        audit.rows += 1
        audit.lengths[max(len(uncut) for _unused, _unused, uncut, _unused in sides)] += 1
        for ids, labels, uncut, uncut_labels in sides:
            uncut_learned, learned = _learned(uncut_labels), _learned(labels)
            audit.seen += len(ids)
            audit.uncut += len(uncut)
            audit.learned += learned
            if not learned:
                codes.add(NOTHING_LEARNED)
            elif self.ending and labels[-len(self.ending) :] != self.ending:
                codes.add(CUT_END)
            if 0 < learned < uncut_learned:
                codes.add(CUT_ANSWER)
            prompt_is_cut = len(ids) - learned < len(uncut) - uncut_learned
            if prompt_is_cut and (self.answers > 1 or learned == uncut_learned):
                codes.add(CUT_PROMPT)
        if self.sides == PAIRED and sides[0][0] == sides[1][0]:
            codes.add(SAME)
        if not audit.example:
            audit.example, *others = [self._marked(ids, labels) for ids, labels, *_unused in sides]
            audit.rejected = [text for other in others for text, learned in other if learned]
        return codes

    def _count(self, audit: Audit, row: int, messages: Messages) -> None:
        """Count a row's learned messages by role and by their thoughts, and its masked observations."""
        template = self.template
        audit.turns["observation"] += sum(message["role"] == "observation" for message in messages)
        learned_messages = messages[1::2]
        if self.args.mask_history:
            learned_messages = messages[-1:]
        for message in learned_messages:
            text = message["content"].lstrip("\n")
            without = template.remove_thought(text)
            removed = self.reasons and template.enable_thinking is False and without != text
            left = text
            if removed:
                left = without
            thought = any(word.strip() in left for word in template.thought_words)
            audit.turns[message["role"]] += 1
            audit.turns["removed"] += removed
            audit.turns["thought"] += thought
            audit.turns["empty"] += self.reasons and not thought
            if self.reasons and thought and template.remove_thought(left) == left:
                audit.find(FOREIGN_THOUGHT, row)

    def _marked(self, ids: Sequence[int | None], labels: Sequence[int]) -> list[tuple[str, bool]]:
        """A row as pieces of text. Each has True if it is learned."""
        pieces = []
        for learned, pairs in groupby(zip(ids, labels, strict=True), key=lambda pair: pair[1] != IGNORED):
            # None is a token of another model's template
            piece_ids = [token for token, _unused in pairs if token is not None]
            pieces.append((self.tokenizer.decode(piece_ids, clean_up_tokenization_spaces=False), learned))
        return pieces


class PretrainingAuditor:
    """Audits pretraining (stage pt), which learns all tokens that cutting and packing leave."""

    def __init__(self, data: RecipeData) -> None:
        self.args = data.data_args
        self.whole = data.encoder(**WHOLE)
        self.cut = data.encoder()

    def audit(self, rows: Row, start: int) -> Audit:
        """Audit a batch (columns of LLaMA-Factory's rows) whose first row has the number `start`."""
        lengths = list(map(len, self.whole.preprocess_dataset(rows)["input_ids"]))
        blocks = self.cut.preprocess_dataset(rows)["input_ids"]
        audit = Audit(Counter(lengths), rows=len(lengths), uncut=sum(lengths), blocks=len(blocks))
        audit.seen = audit.learned = sum(map(len, blocks))
        for number, length in enumerate(lengths):
            if length > self.args.cutoff_len and not self.args.packing:
                audit.find(CUT_TEXT, start + number)
        return audit


def _has_media(rows: Row, number: int) -> bool:
    """True if a row has media, or a placeholder of one in a text."""
    if any(rows[f"_{kind}"][number] for kind in PLACEHOLDERS):
        return True
    texts = [message["content"] for message in rows["_prompt"][number] + rows["_response"][number]]
    return any(placeholder in text for text in texts for placeholder in PLACEHOLDERS.values())


def _some(rows: Row, numbers: Sequence[int]) -> Row:
    return {name: [values[number] for number in numbers] for name, values in rows.items()}


def _learned(labels: list[int]) -> int:
    return len(labels) - labels.count(IGNORED)
