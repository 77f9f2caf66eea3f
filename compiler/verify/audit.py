"""What each row teaches: LLaMA-Factory's own processor on every row, its labels counted and looked at.

The processor asks the tokenizer for one text at a time, a fraction of what a fast tokenizer can do.
So the template runs twice over a batch: once to hear which texts it will ask for, which are then
tokenised together, and once in earnest, served from these. Template, cuts and masks stay
LLaMA-Factory's own; a seeded sample of rows goes through it with its plain tokenizer too and must
give the same labels.
"""

import random
from collections import Counter
from collections.abc import Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

from compiler.verify.load import Loaded

IGNORED = -100  # IGNORE_INDEX of LLaMA-Factory and torch
SAMPLE = 100
KINDS = {
    "E411": "nothing is learned from the row: all of it is masked or cut off",
    "E412": "the template ends no turn: the model never learns to stop",
    "E413": "LLaMA-Factory's plain tokenizer gives other labels than the batch",
    "W414": "the answer is cut off by cutoff_len",
    "W415": "the end of the turn is cut off: the model does not learn to stop there",
    "W416": "the prompt is cut off by cutoff_len",
    "W417": "the answer is empty: only the end of the turn is learned",
}
Row = Mapping[str, Any]


@dataclass(slots=True)
class Audit:
    """Counts over the rows of a set; `places` holds the first row numbers (from 0) of each finding."""

    lengths: Counter[int] = field(default_factory=Counter)
    rows: int = 0
    seen: int = 0
    learned: int = 0
    counts: Counter[str] = field(default_factory=Counter)
    places: dict[str, list[int]] = field(default_factory=dict)
    sampled: int = 0
    example: list[tuple[str, bool]] = field(default_factory=list)

    def find(self, code: str, row: int, first: int) -> None:
        """Count a finding and keep the first places."""
        self.counts[code] += 1
        kept = self.places.setdefault(code, [])
        if len(kept) < first:
            kept.append(row)


class Served:
    """A tokenizer whose `encode` answers from texts that were tokenised together before."""

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer
        self._ids: dict[str, list[int]] = {}
        self._asked: dict[str, None] | None = None

    def __getattr__(self, name: str) -> Any:
        return getattr(self._tokenizer, name)

    def encode(self, text: str, add_special_tokens: bool = False) -> list[int]:
        """Return the ids of a text; while listening, note the text and return none."""
        if self._asked is not None:
            self._asked[text] = None
            return []
        ids = self._ids.get(text)
        if ids is None:
            ids = self._tokenizer.encode(text, add_special_tokens=add_special_tokens)
        return ids

    def listen(self) -> None:
        """Begin to note which texts are asked for."""
        self._asked = {}

    def heard(self) -> list[str]:
        """Return the texts that were asked for since `listen`."""
        texts, self._asked = list(self._asked or ()), None
        return texts

    def tokenise(self, texts: list[str]) -> dict[str, list[int]]:
        """Return the ids of texts, tokenised together (without the interpreter's lock)."""
        if not texts:
            return {}
        ids = self._tokenizer(texts, add_special_tokens=False, return_attention_mask=False)["input_ids"]
        return dict(zip(texts, ids, strict=True))

    def serve(self, ids: dict[str, list[int]]) -> None:
        """Answer from these texts."""
        self._ids = ids


class Heard:
    """A template that remembers the (prompt, answer) ids it gave before the processor cuts them."""

    def __init__(self, template: Any) -> None:
        self._template = template
        self.pairs: list[list[tuple[list[int], list[int]]]] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self._template, name)

    def encode_multiturn(self, *given: Any, **named: Any) -> list[tuple[list[int], list[int]]]:
        """Return LLaMA-Factory's ids of every turn."""
        pairs: list[tuple[list[int], list[int]]] = self._template.encode_multiturn(*given, **named)
        self.pairs.append(pairs)
        return pairs


class Auditor:
    """Audits batches of loaded rows, in order."""

    def __init__(self, loaded: Loaded, tokenizer: Any, template: Any, first: int) -> None:
        from llamafactory.data.processor import SupervisedDatasetProcessor

        self.args = loaded.data_args
        self.tokenizer = tokenizer
        self.template = template
        self.served = Served(tokenizer)
        self.heard = Heard(template)
        self.processor = SupervisedDatasetProcessor(self.heard, self.served, None, self.args)
        self.plain = SupervisedDatasetProcessor(template, tokenizer, None, self.args)
        self.sample = set(random.Random(42).sample(range(len(loaded.rows)), min(SAMPLE, len(loaded.rows))))
        self.ending = self._ending()
        self.pool = ThreadPoolExecutor(1)
        self.pending: tuple[Row, int, list[int], Future[dict[str, list[int]]]] | None = None
        self.first = first
        self.audit = Audit()

    def take(self, rows: Row, start: int) -> None:
        """Take in a batch (columns of LLaMA-Factory's rows) whose first row has the number `start`.

        Its texts are tokenised in a thread while the batch before it is audited.
        """
        pairs = enumerate(zip(rows["_prompt"], rows["_response"], strict=True))
        numbers = [number for number, (asked, answered) in pairs if len(asked) % 2 and len(answered) == 1]
        self.served.listen()
        for n in numbers:
            messages = rows["_prompt"][n] + rows["_response"][n]
            self.template.encode_multiturn(self.served, messages, rows["_system"][n], rows["_tools"][n])
        ids = self.pool.submit(self.served.tokenise, self.served.heard())
        self.finish()
        self.pending = (rows, start, numbers, ids)

    def finish(self) -> None:
        """Audit the batch that was taken in last."""
        if self.pending is None:
            return
        rows, start, numbers, ids = self.pending
        self.pending = None
        self.served.serve(ids.result())
        self.heard.pairs = []
        made = self.processor.preprocess_dataset(rows)
        labels = made.get("labels", [])
        for number, pairs, row_ids, row_labels in zip(
            numbers, self.heard.pairs, made.get("input_ids", []), labels, strict=True
        ):
            self._look(start + number, pairs, row_ids, row_labels)
            if not rows["_response"][number][0]["content"].strip():
                self.audit.find("W417", start + number, self.first)
        chosen = [number for number in numbers if start + number in self.sample]
        self._compare(chosen, rows, start, dict(zip(numbers, labels, strict=True)))

    def _look(
        self, row: int, pairs: list[tuple[list[int], list[int]]], ids: list[int], labels: list[int]
    ) -> None:
        """Count one row: its length before the cut, what is learned of it, what was cut."""
        audit = self.audit
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
            audit.find("E411", row, self.first)
        elif learned < (length if self.args.train_on_prompt else due + extra):
            audit.find("W414", row, self.first)
        elif len(ids) < length:
            audit.find("W416", row, self.first)
        if not self.ending:
            audit.find("E412", row, self.first)
        elif learned and labels[-len(self.ending) :] != self.ending:
            audit.find("W415", row, self.first)
        if not audit.example:
            audit.example = self._marked(ids, labels)

    def _ending(self) -> list[int]:
        """Return the ids that end a turn, from the first stop token on ([]: the template has none)."""
        if self.template.efficient_eos:
            return [self.tokenizer.eos_token_id]
        talk = [{"role": "user", "content": "a"}, {"role": "assistant", "content": ""}]
        ids = self.template.encode_multiturn(self.tokenizer, talk)[0][1]
        stops = set(self.template.get_stop_token_ids(self.tokenizer))
        return next((ids[place:] for place, token in enumerate(ids) if token in stops), [])

    def _marked(self, ids: list[int], labels: list[int]) -> list[tuple[str, bool]]:
        """Return a row as pieces of text, each with whether it is learned."""
        pieces: list[tuple[list[int], bool]] = []
        for token, label in zip(ids, labels, strict=True):
            if not pieces or pieces[-1][1] != (label != IGNORED):
                pieces.append(([], label != IGNORED))
            pieces[-1][0].append(token)
        return [(self.tokenizer.decode(tokens), learned) for tokens, learned in pieces]

    def _compare(
        self, numbers: Sequence[int], rows: Row, start: int, labels: Mapping[int, list[int]]
    ) -> None:
        """Put sampled rows through LLaMA-Factory's processor with its plain tokenizer: the same labels?"""
        if not numbers:
            return
        chosen = {name: [values[n] for n in numbers] for name, values in rows.items()}
        for number, plain in zip(numbers, self.plain.preprocess_dataset(chosen)["labels"], strict=True):
            self.audit.sampled += 1
            if plain != labels[number]:
                self.audit.find("E413", start + number, self.first)


class Lengths:
    """Counts the tokens of texts for pretraining (stage pt), where all are learned and none is masked."""

    def __init__(self, loaded: Loaded, tokenizer: Any, template: Any, first: int) -> None:
        del loaded, template, first  # what an Auditor is made of
        self.tokenizer = tokenizer
        self.audit = Audit()

    def take(self, rows: Row, start: int) -> None:
        """Count a batch of texts, each with its end-of-text token."""
        del start
        texts = [messages[0]["content"] + self.tokenizer.eos_token for messages in rows["_prompt"]]
        ids = self.tokenizer(texts, add_special_tokens=False, return_attention_mask=False)["input_ids"]
        self.audit.lengths.update(map(len, ids))
        self.audit.rows += len(ids)
        self.audit.seen += sum(map(len, ids))
        self.audit.learned = self.audit.seen

    def finish(self) -> None:
        """Nothing waits."""
