"""Models and datasets of the table: tiny random models, and rows that `tuneyard data compile` compiles."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from PIL import Image

from testing import ROOT
from testing.forks import Forks
from testing.tiny import make_seeing, make_tiny

TRAIN_NUMBERS, EVAL_NUMBERS = range(8), range(100, 104)
"""Of the rows; those of the evaluation have the same number of digits, and so of tokens."""
IMAGES = {"images": {"names": ["images"], "is": "images"}}


@dataclass(frozen=True, slots=True)
class Dataset:
    """A compiled dataset: names of its splits in the registry, and the file of the rows that are scored."""

    train: str
    evaluation: str
    scored_file: Path


class Material:
    """A folder with both models and a compiled dataset of every spec, made when first asked for."""

    def __init__(self, folder: Path, forks: Forks) -> None:
        self.folder = folder
        self.info = folder / "info"
        self._forks = forks
        self._datasets: dict[str, Dataset] = {}

    def model(self, *, sees: bool) -> Path:
        """The model of a stage, with or without a vision tower."""
        folder = self.folder / ("sees" if sees else "model")
        if not (folder / "model.safetensors").is_file():
            if sees:
                return make_wider_seeing(folder)
            return make_tiny(folder)
        return folder

    def dataset(self, spec: str) -> Dataset:
        """The compiled dataset of a spec. Its training and its evaluation split come from two files."""
        if spec not in self._datasets:
            self._datasets[spec] = self._compile(spec)
        return self._datasets[spec]

    def block_of_a_text(self) -> int:
        """The cutoff_len that packs each evaluated text into a block of its own.

        LLaMA-Factory packs into blocks of one token less than cutoff_len. A text has one more, its end.
        """
        from transformers import AutoTokenizer

        tokenizer = AutoTokenizer.from_pretrained(self.model(sees=False))
        texts = [row("text", number)["text"] for number in EVAL_NUMBERS]
        (length,) = {len(tokenizer(text).input_ids) for text in texts}
        return length + 2

    def _compile(self, spec: str) -> Dataset:
        raw = self.folder / "raw" / spec
        raw.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (56, 56), "red").save(raw / "red.png")
        sources = []
        for split, numbers in (("train", TRAIN_NUMBERS), ("eval", EVAL_NUMBERS)):
            lines = [json.dumps(row(spec, number)) + "\n" for number in numbers]
            path = raw / f"{split}.jsonl"
            path.write_text("".join(lines))
            sources.append(f"--source={split}={path}")
        path = raw / f"{spec}.yaml"
        path.write_text(json.dumps(own_spec(spec)))
        self._forks.run("tuneyard", "data", "compile", path, *sources, "--out", self.info)
        registry = json.loads((self.info / "dataset_info.json").read_text())
        evaluation = f"{spec}_eval"
        return Dataset(f"{spec}_train", evaluation, self.info / registry[evaluation]["file_name"])


def make_wider_seeing(folder: Path) -> Path:
    """Write a tiny model that sees; inputs of its layers fill bitsandbytes' blocks of 64 (qlora)."""
    from transformers import AutoConfig, AutoModelForImageTextToText

    config = AutoConfig.from_pretrained(make_seeing(folder))
    config.vision_config.hidden_size = 64
    AutoModelForImageTextToText.from_config(config).save_pretrained(folder)
    return folder


def own_spec(name: str) -> dict[str, object]:
    """A bundled spec with a training and an evaluation split; `seen-pairs` is `pairs-chat` with images."""
    bundled, columns = name, {}
    if name == "seen-pairs":
        bundled, columns = "pairs-chat", IMAGES
    spec = yaml.safe_load((ROOT / f"compiler/specs/{bundled}.yaml").read_text(encoding="utf-8"))
    written = {**spec["write"][0], "dataset": name + "_{split}", "file": name + "-{split}.jsonl"}
    splits = {"train": "train", "eval": "eval"}
    return {"like": bundled, "source": {"splits": splits}, "columns": columns, "write": [written]}


def row(spec: str, number: int) -> dict[str, Any]:
    """A raw row of a spec. The answer depends on the number."""
    question = f"Is {number} even? Answer yes or no."
    answers = ["yes", "no"]
    if number % 2:
        answers.reverse()
    chosen, rejected = answers
    turn = {"role": "user", "content": question}
    answer = {"role": "assistant", "content": chosen}
    if spec == "text":
        return {"text": " ".join([question, "The answer is written below."] * 3)}
    if spec == "io":
        return {"instruction": question, "output": chosen}
    if spec == "pairs":
        return {"instruction": question, "chosen": chosen, "rejected": rejected}
    if spec == "kto":
        return {"messages": [turn, answer], "label": number % 3 == 0}
    turn["content"] = f"<image>{question}"
    if spec == "media":
        return {"messages": [turn, answer], "images": ["red.png"]}
    other = {"role": "assistant", "content": rejected}
    return {"messages": [turn], "chosen": answer, "rejected": other, "images": ["red.png"]}
