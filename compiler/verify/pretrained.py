"""What pretraining (stage pt) learns of texts: all tokens but those cut off or left over by packing."""

from typing import Any

from compiler.verify.audit import Audit, Row
from compiler.verify.load import Loaded


class Measuring:
    """A tokenizer that notes how long texts are before they are cut."""

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer
        self.lengths: list[int] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self._tokenizer, name)

    def __call__(self, texts: list[str], **asked: Any) -> Any:
        """Return the ids of texts, cut where LLaMA-Factory asks for it."""
        whole = self._tokenizer(texts, add_special_tokens=False, return_attention_mask=False)
        self.lengths = list(map(len, whole["input_ids"]))
        if asked.get("truncation") and max(self.lengths) > asked["max_length"]:
            return self._tokenizer(texts, **asked)
        return whole


class PretrainingAuditor:
    """Audits batches of texts with LLaMA-Factory's own processor, which packs or cuts them."""

    def __init__(self, loaded: Loaded, tokenizer: Any, template: Any) -> None:
        from llamafactory.data.processor import PretrainDatasetProcessor

        self.args = loaded.data_args
        self.measuring = Measuring(tokenizer)
        self.processor = PretrainDatasetProcessor(template, self.measuring, None, self.args)

    def audit(self, rows: Row, start: int) -> Audit:
        """Audit a batch (columns of LLaMA-Factory's rows) whose first row has the number `start`."""
        blocks = self.processor.preprocess_dataset(rows)["input_ids"]
        audit = Audit(rows=len(rows["_prompt"]), blocks=len(blocks))
        audit.lengths.update(self.measuring.lengths)
        audit.seen = audit.learned = sum(map(len, blocks))
        for number, length in enumerate(self.measuring.lengths):
            if length > self.args.cutoff_len and not self.args.packing:
                audit.find("W419", start + number)
        return audit
