"""What rows teach by LLaMA-Factory's own processor and tokenizer alone, one row after the other.

For pairs (stages rm and dpo: reward, DPO, ORPO, SimPO), marked answers (stage kto) and rows with media, which
take the model's own processor. A second pass without cutoff_len says what was cut.
"""

from copy import copy
from typing import Any

from compiler.kinds import PLACEHOLDERS
from compiler.verify.audit import Audit, Row
from compiler.verify.labels import IGNORED, marked, probe
from compiler.verify.load import REFUSALS, Loaded

UNCUT = 1 << 31
PAIRED = ("chosen_", "rejected_")


class PlainAuditor:
    """Audits batches of loaded rows; each side of a pair counts its own tokens."""

    def __init__(self, loaded: Loaded, tokenizer: Any, template: Any, processor: Any = None) -> None:
        from llamafactory.data import processor as kinds

        uncut = copy(loaded.data_args)
        uncut.cutoff_len = UNCUT
        kind = {"sft": kinds.SupervisedDatasetProcessor, "kto": kinds.FeedbackDatasetProcessor}.get(
            loaded.stage, kinds.PairwiseDatasetProcessor
        )
        self.cutoff, self.answers = loaded.data_args.cutoff_len, 1 if loaded.stage == "sft" else 2
        self.sides = ("",) if loaded.stage in ("sft", "kto") else PAIRED
        self.tokenizer = tokenizer
        self.processor = kind(template, tokenizer, processor, loaded.data_args)
        self.whole = kind(template, tokenizer, processor, uncut)
        self.ending, self.foreign = probe(template, tokenizer)

    def audit(self, rows: Row, start: int) -> Audit:
        """Audit a batch (columns of LLaMA-Factory's rows) whose first row has the number `start`."""
        audit = Audit()
        pairs = enumerate(zip(rows["_prompt"], rows["_response"], strict=True))
        numbers = [n for n, (asked, told) in pairs if len(asked) % 2 and len(told) == self.answers]
        whole = self._encoded(_rows(rows, numbers))
        if whole is None:  # some row stops it: which?
            stopped = [number for number in numbers if self._encoded(_rows(rows, [number])) is None]
            for number in stopped:
                audit.find("E423" if _has_media(rows, number) else "E420", start + number)
            numbers = [number for number in numbers if number not in stopped]
            whole = self._encoded(_rows(rows, numbers))
        if not numbers or whole is None:
            return audit
        longest = max(len(ids) for side in self.sides for ids in whole[f"{side}input_ids"])
        # at cutoff_len itself LLaMA-Factory's rounding may already take a token
        cut = longest >= self.cutoff
        made = self.processor.preprocess_dataset(_rows(rows, numbers)) if cut else whole
        for place, number in enumerate(numbers):
            empty = [not answer["content"].strip() for answer in rows["_response"][number]]
            found = {"W417"} if (any if self.sides == PAIRED else all)(empty) else set()
            for code in sorted(found | self._look(audit, place, made, whole)):
                audit.find(code, start + number)
        return audit

    def _encoded(self, rows: Row) -> Row | None:
        """Return the ids and labels of rows before the cut, None where LLaMA-Factory stops at one."""
        try:
            made: Row = self.whole.preprocess_dataset(rows)
        except REFUSALS:
            return None
        return made

    def _look(self, audit: Audit, place: int, made: Row, whole: Row) -> set[str]:
        """Count one row, and return the codes of what is wrong with it."""
        found = {"E418"} if self.foreign else set()
        audit.rows += 1
        audit.lengths[max(len(whole[f"{side}input_ids"][place]) for side in self.sides)] += 1
        for side in self.sides:
            ids, labels = made[f"{side}input_ids"][place], made[f"{side}labels"][place]
            due, learned = _learned(whole[f"{side}labels"][place]), _learned(labels)
            audit.seen += len(ids)
            audit.learned += learned
            found |= self._cut(labels, learned, due)
            if len(ids) - learned < len(whole[f"{side}input_ids"][place]) - due:
                found.add("W416")
        if self.sides == PAIRED and made["chosen_input_ids"][place] == made["rejected_input_ids"][place]:
            found.add("W422")
        if not audit.example:
            audit.example, *others = [
                marked(self.tokenizer, made[f"{side}input_ids"][place], made[f"{side}labels"][place])
                for side in self.sides
            ]
            audit.rejected = [text for other in others for text, learned in other if learned]
        return found

    def _cut(self, labels: list[int], learned: int, due: int) -> set[str]:
        if not self.ending:
            return {"E412"}
        if learned == 0:
            return {"E411"}
        truncated = {"W414"} if learned < due else set()
        return truncated if labels[-len(self.ending) :] == self.ending else truncated | {"W415"}


def _rows(rows: Row, numbers: list[int]) -> Row:
    return {name: [values[number] for number in numbers] for name, values in rows.items()}


def _has_media(rows: Row, number: int) -> bool:
    return any(rows[f"_{kind}"][number] for kind in PLACEHOLDERS)


def _learned(labels: list[int]) -> int:
    return len(labels) - labels.count(IGNORED)
