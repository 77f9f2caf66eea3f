"""What each row teaches: LLaMA-Factory's own processor on every row, its labels counted and looked at.

Its tokenizer is asked for many texts at once (see `encode`), a fraction of the time of one text at a
time. Template, cuts and masks stay LLaMA-Factory's own; a seeded sample of rows goes through it with
its plain tokenizer too and must give the same labels.
"""

import random
from collections.abc import Mapping, Sequence
from typing import Any

from compiler.verify.audit import Audit, Row
from compiler.verify.encode import Pairs, Prepared, Question
from compiler.verify.load import Loaded

IGNORED = -100  # IGNORE_INDEX of LLaMA-Factory and torch
SAMPLE = 100


class SupervisedAuditor:
    """What supervised fine-tuning (stage sft) learns of each row."""

    def __init__(self, loaded: Loaded, tokenizer: Any, template: Any) -> None:
        from llamafactory.data.processor import SupervisedDatasetProcessor

        self.args = loaded.data_args
        self.tokenizer = tokenizer
        self.template = template
        self.prepared = Prepared(template, tokenizer)
        self.processor = SupervisedDatasetProcessor(self.prepared, tokenizer, None, self.args)
        self.plain = SupervisedDatasetProcessor(template, tokenizer, None, self.args)
        self.sample = set(random.Random(42).sample(range(len(loaded.rows)), min(SAMPLE, len(loaded.rows))))
        self.ending, self.foreign = self._probe()

    def audit(self, rows: Row, start: int) -> Audit:
        """Audit a batch (columns of LLaMA-Factory's rows) whose first row has the number `start`."""
        audit = Audit()
        numbers = [
            number
            for number, (asked, answered) in enumerate(zip(rows["_prompt"], rows["_response"], strict=True))
            if len(asked) % 2 and len(answered) == 1
        ]
        prepared = self.prepared.prepare([self._question(rows, number) for number in numbers])
        made = self.processor.preprocess_dataset(rows)
        labels = made.get("labels", [])
        for number, pairs, row_ids, row_labels in zip(
            numbers, prepared, made.get("input_ids", []), labels, strict=True
        ):
            self._look(audit, start + number, pairs, row_ids, row_labels)
            if not rows["_response"][number][0]["content"].strip():
                audit.find("W417", start + number)
        chosen = [number for number in numbers if start + number in self.sample]
        self._compare(audit, chosen, rows, start, dict(zip(numbers, labels, strict=True)))
        return audit

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
            audit.example = self._marked(ids, labels)

    def _probe(self) -> tuple[list[int], bool]:
        """Return the ids that end a turn, from the first stop token on, and whether a token is unknown."""
        talk = [{"role": "user", "content": "a"}, {"role": "assistant", "content": ""}]
        asked, told = self.template.encode_multiturn(self.tokenizer, talk)[0]
        stops = set(self.template.get_stop_token_ids(self.tokenizer))
        ending: list[int] = next((told[place:] for place, token in enumerate(told) if token in stops), [])
        if self.template.efficient_eos:
            ending = [self.tokenizer.eos_token_id]
        return ending, None in [*asked, *told, *stops]

    def _marked(self, ids: list[int], labels: list[int]) -> list[tuple[str, bool]]:
        """Return a row as pieces of text, each with whether it is learned."""
        pieces: list[tuple[list[int], bool]] = []
        for token, label in zip(ids, labels, strict=True):
            if not pieces or pieces[-1][1] != (label != IGNORED):
                pieces.append(([], label != IGNORED))
            pieces[-1][0].append(token)
        known = [([token for token in tokens if token is not None], learned) for tokens, learned in pieces]
        return [(self.tokenizer.decode(tokens), learned) for tokens, learned in known]

    def _compare(
        self, audit: Audit, numbers: Sequence[int], rows: Row, start: int, labels: Mapping[int, list[int]]
    ) -> None:
        """Put sampled rows through LLaMA-Factory's processor with its plain tokenizer: the same labels?"""
        if not numbers:
            return
        chosen = {name: [values[n] for n in numbers] for name, values in rows.items()}
        for number, plain in zip(numbers, self.plain.preprocess_dataset(chosen)["labels"], strict=True):
            audit.sampled += 1
            if plain != labels[number]:
                audit.find("E413", start + number)
