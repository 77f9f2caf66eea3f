"""Blocks of packed rows, counted by LLaMA-Factory's own processors as `datasets` runs them."""

from pathlib import Path
from types import SimpleNamespace

import pytest

from tuneyard.recipes.llamafactory.rows import Packing

pytestmark = pytest.mark.slow


@pytest.mark.parametrize(("rows", "workers", "batch"), [(10, 4, 1000), (90, 3, 7), (90, 1, 40), (2, 8, 1000)])
def test_blocks_of_running_text_are_those_of_llamafactory(
    tiny_model: Path, rows: int, workers: int, batch: int
) -> None:
    from datasets import Dataset
    from llamafactory.data.processor.pretrain import PretrainDatasetProcessor
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(tiny_model)
    texts = [f"row {number} of running text " * (1 + number % 3) for number in range(rows)]
    lengths = [len(tokenizer(text + tokenizer.eos_token)["input_ids"]) for text in texts]
    settings = SimpleNamespace(packing=True, cutoff_len=48, template="default")
    processor = PretrainDatasetProcessor(None, tokenizer, None, settings)
    prompts = Dataset.from_dict({"_prompt": [[{"role": "user", "content": text}] for text in texts]})
    packed = prompts.map(
        processor.preprocess_dataset,
        batched=True,
        batch_size=batch,
        num_proc=min(workers, rows),
        remove_columns=["_prompt"],
    )
    assert Packing(48, "pt", workers, batch).blocks([[length] for length in lengths]) == len(packed)
