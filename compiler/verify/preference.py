"""What pairs (stage rm: reward, DPO, ORPO, SimPO) and marked answers (stage kto) teach, row by row.

LLaMA-Factory's own processor, template and tokenizer make the ids and labels of every row; a second
pass without cutoff_len says what was cut.
"""

from copy import copy
from typing import Any

from compiler.verify.audit import Audit, Row
from compiler.verify.labels import IGNORED, marked, probe
from compiler.verify.load import REFUSALS, Loaded

UNCUT = 1 << 31
PAIRED = ("chosen_", "rejected_")


class PreferenceAuditor:
    """Audits batches of pairs or marked answers; each side of a pair counts its own tokens."""

    def __init__(self, loaded: Loaded, tokenizer: Any, template: Any) -> None:
        from llamafactory.data.processor import FeedbackDatasetProcessor, PairwiseDatasetProcessor

        marks = loaded.stage == "kto"
        kind = FeedbackDatasetProcessor if marks else PairwiseDatasetProcessor
        uncut = copy(loaded.data_args)
        uncut.cutoff_len = UNCUT
        self.cutoff = loaded.data_args.cutoff_len
        self.sides = ("",) if marks else PAIRED
        self.tokenizer, self.template = tokenizer, template
        self.processor = kind(template, tokenizer, None, loaded.data_args)
        self.whole = kind(template, tokenizer, None, uncut)
        self.ending, self.foreign = probe(template, tokenizer)

    def audit(self, rows: Row, start: int) -> Audit:
        """Audit a batch (columns of LLaMA-Factory's rows) whose first row has the number `start`."""
        audit = Audit()
        numbers = []
        for number, (asked, answers) in enumerate(zip(rows["_prompt"], rows["_response"], strict=True)):
            if len(asked) % 2 and len(answers) == 2:
                if all(self._writes(rows, number, answer) for answer in answers):
                    numbers.append(number)
                else:
                    audit.find("E420", start + number)
        if not numbers:
            return audit
        rows = {name: [values[number] for number in numbers] for name, values in rows.items()}
        whole = self.whole.preprocess_dataset(rows)
        longest = max(len(ids) for side in self.sides for ids in whole[f"{side}input_ids"])
        # at cutoff_len itself LLaMA-Factory's rounding may already take a token
        made = self.processor.preprocess_dataset(rows) if longest >= self.cutoff else whole
        for place, number in enumerate(numbers):
            empty = [not answer["content"].strip() for answer in rows["_response"][place]]
            found = {"W417"} if (any if self.sides == PAIRED else all)(empty) else set()
            for code in sorted(found | self._look(audit, place, made, whole)):
                audit.find(code, start + number)
        return audit

    def _writes(self, rows: Row, number: int, answer: dict[str, str]) -> bool:
        """Whether the template can write a row with its tools or calls; without them it always can."""
        if not rows["_tools"][number] and all(turn["role"] != "function" for turn in rows["_prompt"][number]):
            return True
        messages = rows["_prompt"][number] + [answer]
        try:
            self.template.encode_oneturn(
                self.tokenizer, messages, rows["_system"][number], rows["_tools"][number]
            )
        except REFUSALS:
            return False
        return True

    def _look(self, audit: Audit, place: int, made: Row, whole: Row) -> set[str]:
        """Count one row, and return the codes of what is wrong with it."""
        found = {"E418"} if self.foreign else set()
        audit.rows += 1
        audit.lengths[max(len(whole[f"{side}input_ids"][place]) for side in self.sides)] += 1
        for side in self.sides:
            ids, labels = made[f"{side}input_ids"][place], made[f"{side}labels"][place]
            due = _learned(whole[f"{side}labels"][place])
            learned = _learned(labels)
            audit.seen += len(ids)
            audit.learned += learned
            found |= self._cut(labels, learned, due)
            if len(ids) - learned < len(whole[f"{side}input_ids"][place]) - due:
                found.add("W416")
        if self.sides == PAIRED and made["chosen_input_ids"][place] == made["rejected_input_ids"][place]:
            found.add("W422")
        if not audit.example:
            sides = [f"{side}input_ids" for side in self.sides], [f"{side}labels" for side in self.sides]
            audit.example, *others = [
                marked(self.tokenizer, made[ids][place], made[labels][place])
                for ids, labels in zip(*sides, strict=True)
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


def _learned(labels: list[int]) -> int:
    return len(labels) - labels.count(IGNORED)
