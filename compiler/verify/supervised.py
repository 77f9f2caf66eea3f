"""What each row teaches: LLaMA-Factory's own processor on every row, its labels counted and looked at.

Its tokenizer is asked for many texts at once (see `encode`), a fraction of the time of one text at a
time. Template, cuts and masks stay LLaMA-Factory's own; a seeded sample of rows goes through it with
its plain tokenizer too and must give the same labels.
"""

import random
from collections.abc import Sequence
from typing import Any

from compiler.verify.audit import Audit, Row
from compiler.verify.encode import Pairs, Prepared, Question
from compiler.verify.labels import IGNORED, marked, probe
from compiler.verify.load import Loaded

SAMPLE = 100


class SupervisedAuditor:
    """What supervised fine-tuning (stage sft) learns of each row."""

    def __init__(self, loaded: Loaded, tokenizer: Any, template: Any) -> None:
        from llamafactory.data.processor import SupervisedDatasetProcessor
        from llamafactory.data.template import ReasoningTemplate

        self.reasoning = ReasoningTemplate
        self.args = loaded.data_args
        self.tokenizer = tokenizer
        self.template = template
        self.prepared = Prepared(template, tokenizer)
        self.processor = SupervisedDatasetProcessor(self.prepared, tokenizer, None, self.args)
        self.plain = SupervisedDatasetProcessor(template, tokenizer, None, self.args)
        self.sample = set(random.Random(42).sample(range(len(loaded.rows)), min(SAMPLE, len(loaded.rows))))
        self.ending, self.foreign = probe(template, tokenizer)

    def audit(self, rows: Row, start: int) -> Audit:
        """Audit a batch (columns of LLaMA-Factory's rows) whose first row has the number `start`."""
        audit = Audit()
        numbers = [
            number
            for number, (asked, answered) in enumerate(zip(rows["_prompt"], rows["_response"], strict=True))
            if len(asked) % 2 and len(answered) == 1
        ]
        refused = [n for n in numbers if self._has_tools(rows, n) and not self._writes(rows, n)]
        for number in refused:
            audit.find("E420", start + number)
        numbers = [number for number in numbers if number not in refused]
        rows = {name: [values[number] for number in numbers] for name, values in rows.items()}
        prepared = self.prepared.prepare([self._question(rows, place) for place in range(len(numbers))])
        made = self.processor.preprocess_dataset(rows)
        labels = made.get("labels", [])
        for place, (number, pairs, row_ids) in enumerate(
            zip(numbers, prepared, made.get("input_ids", []), strict=True)
        ):
            self._look(audit, start + number, pairs, row_ids, labels[place])
            self._count(audit, start + number, self._question(rows, place)[0])
            if not rows["_response"][place][0]["content"].strip():
                audit.find("W417", start + number)
        self._compare(audit, [start + number for number in numbers], rows, labels)
        return audit

    def _has_tools(self, rows: Row, number: int) -> bool:
        turns = rows["_prompt"][number] + rows["_response"][number]
        return bool(rows["_tools"][number]) or any(turn["role"] == "function" for turn in turns)

    def _writes(self, rows: Row, number: int) -> bool:
        return self.prepared.writes(self._question(rows, number))

    def _count(self, audit: Audit, row: int, messages: list[dict[str, str]]) -> None:
        """Count a row's turns by what is learned of them, as the template's settings have it."""
        audit.turns["observation"] += sum(message["role"] == "observation" for message in messages)
        reasons = isinstance(self.template, self.reasoning)
        for message in messages[-1:] if self.args.mask_history else messages[1::2]:
            text = message["content"].lstrip("\n")
            without = self.template.remove_thought(text)
            removed = reasons and self.template.enable_thinking is False and without != text
            left = without if removed else text
            marked = any(word.strip() in left for word in self.template.thought_words)
            audit.turns[message["role"]] += 1
            audit.turns["removed"] += removed
            audit.turns["thought"] += marked
            audit.turns["empty"] += reasons and not marked
            if reasons and marked and self.template.remove_thought(left) == left:
                audit.find("W421", row)

    def _question(self, rows: Row, number: int) -> Question:
        """Return what the processor will ask the template for."""
        without_thoughts = self.args.mask_history and not self.template.preserve_thinking
        messages = rows["_prompt"][number] + rows["_response"][number]
        return messages, rows["_system"][number], rows["_tools"][number], without_thoughts

    def _look(self, audit: Audit, row: int, pairs: Pairs, ids: list[int], labels: list[int]) -> None:
        """Count one row: its length before the cut, what is learned of it, what was cut."""
        extra = len(pairs) if self.template.efficient_eos else 0
        asked, answered = sum(len(source) for source, _ in pairs), sum(len(target) for _, target in pairs)
        length = asked + answered + bool(extra)
        learned = len(labels) - labels.count(IGNORED)
        due = len(pairs[-1][1]) if self.args.mask_history else answered
        audit.rows += 1
        audit.lengths[length] += 1
        audit.seen += len(ids)
        audit.learned += learned
        if learned == 0:
            audit.find("E411", row)
        elif learned < (length if self.args.train_on_prompt else due + extra):
            audit.find("W414", row)
        elif len(ids) < length:
            audit.find("W416", row)
        if not self.ending:
            audit.find("E412", row)
        elif learned and labels[-len(self.ending) :] != self.ending:
            audit.find("W415", row)
        if self.foreign:
            audit.find("E418", row)
        if not audit.example:
            audit.example = marked(self.tokenizer, ids, labels)

    def _compare(self, audit: Audit, numbers: Sequence[int], rows: Row, labels: Sequence[list[int]]) -> None:
        """Put sampled rows through LLaMA-Factory's processor with its plain tokenizer: the same labels?"""
        places = [place for place, number in enumerate(numbers) if number in self.sample]
        if not places:
            return
        chosen = {name: [values[place] for place in places] for name, values in rows.items()}
        for place, plain in zip(places, self.plain.preprocess_dataset(chosen)["labels"], strict=True):
            audit.sampled += 1
            if plain != labels[place]:
                audit.find("E413", numbers[place])
