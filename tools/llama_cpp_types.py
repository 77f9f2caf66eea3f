"""How much of a q8_0 file's difference is its weights, how much llama.cpp's arithmetic on 8-bit activations.

    pip install --no-deps --target build/peers/llama-cpp llama-cpp-python diskcache    (builds for 10 minutes)
    PYTHONPATH=build/peers/llama-cpp python -m tools.llama_cpp_types MODEL_DIR DATASET

A model without adapters in fp32 is the reference. Every other way is compared with it by the labels'
log-probabilities after each prompt of the dataset. docs/export.md has the figures. Run it after a change of
how a GGUF file of a model is written.
"""

import ctypes
import math
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np

from tuneyard.eval.data.dataset import read_datasets
from tuneyard.eval.data.prompts import choose_prompting
from tuneyard.eval.figures.labels import find_labels, spellings
from tuneyard.eval.models.load import Model, load_gguf, load_model

Scores = dict[int, dict[str, float]]  # row → label → log-probability


def main(folder: Path, dataset: str) -> None:
    """Print a line for each way to run the model."""
    model = load_model(folder, "fp32")
    (questions,) = read_datasets((dataset,), ())
    labels = {label: spellings(label) for label in find_labels(questions.answers, dataset)}
    encode = choose_prompting(model.tokenizer, (), None).encode
    prompts = {row: encode(talk.messages) for row, talk in enumerate(questions.conversations)}
    reference = by_transformers(model, prompts, labels)
    print("| | largest difference | mean | flips | accuracy |\n|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as home:
        for name, scores in ways(model, folder, Path(home), prompts, labels):
            off = [
                abs(scores[row][label] - log)
                for row, logs in reference.items()
                for label, log in logs.items()
            ]
            said = {row: max(logs, key=logs.__getitem__) for row, logs in scores.items()}
            flips = sum(said[row] != max(logs, key=logs.__getitem__) for row, logs in reference.items())
            right = sum(said[row] == answer for row, answer in enumerate(questions.answers)) / len(said)
            print(
                f"| {name} | {max(off):.4f} | {np.mean(off):.4f} | {flips} of {len(said)} | {right:.1%} |",
                flush=True,
            )


def ways(
    model: Model, folder: Path, home: Path, prompts: dict[int, list[int]], labels: dict[str, list[str]]
) -> Iterator[tuple[str, Scores]]:
    """Yield every way's name and scores."""
    f16, q8, own, wide = (home / f"{name}.gguf" for name in ("f16", "q8_0", "own", "wide"))
    for kind, path in (("f16", f16), ("q8_0", q8)):
        command = [
            "-m",
            "tuneyard",
            "adapter",
            "export",
            folder,
            "--to",
            "gguf",
            "--type",
            kind,
            "--out",
            path,
        ]
        subprocess.run([sys.executable, *map(str, command)], check=True, stdout=subprocess.DEVNULL)
    import llama_cpp

    options = llama_cpp.llama_model_quantize_default_params()
    options.ftype = llama_cpp.LLAMA_FTYPE_MOSTLY_Q8_0
    llama_cpp.llama_model_quantize(str(f16).encode(), str(own).encode(), ctypes.byref(options))
    shutil.copy(f16, wide)
    widen(q8, wide)
    yield "f16, transformers", by_transformers(load_gguf(f16, model), prompts, labels)
    yield "f16, llama.cpp", by_llama_cpp(model, f16, prompts, labels)
    yield "q8_0 weights, transformers in fp32", by_transformers(load_gguf(q8, model), prompts, labels)
    yield "q8_0 weights widened to f16, llama.cpp", by_llama_cpp(model, wide, prompts, labels)
    yield "q8_0, llama.cpp", by_llama_cpp(model, q8, prompts, labels)
    yield "q8_0 of llama.cpp's own quantiser, llama.cpp", by_llama_cpp(model, own, prompts, labels)


def widen(narrow: Path, wide: Path) -> None:
    """Put the values of a q8_0 file's tensors in the place of those of the f16 file."""
    from gguf import GGMLQuantizationType, GGUFReader
    from gguf.quants import dequantize

    sources = {tensor.name: tensor for tensor in GGUFReader(narrow).tensors}
    for tensor in GGUFReader(wide, "r+").tensors:
        if sources[tensor.name].tensor_type == GGMLQuantizationType.Q8_0:
            values = dequantize(sources[tensor.name].data, GGMLQuantizationType.Q8_0)
            tensor.data[:] = values.reshape(tensor.data.shape)


def by_transformers(model: Model, prompts: dict[int, list[int]], labels: dict[str, list[str]]) -> Scores:
    """Return what eval.nli compares."""
    asker = replace(model, budget=2048).choosing(prompts, labels)
    return {
        row: fields["choices"]
        for batch in asker.batches
        for row, fields in zip(batch, asker.score(batch), strict=True)
    }


def by_llama_cpp(
    model: Model, path: Path, prompts: dict[int, list[int]], labels: dict[str, list[str]]
) -> Scores:
    """Return the same by llama.cpp; labels whose spellings are one token each."""
    import llama_cpp

    columns = {
        label: [model.tokenizer(text)["input_ids"] for text in texts] for label, texts in labels.items()
    }
    longest = max(map(len, prompts.values()))
    net = llama_cpp.Llama(str(path), n_ctx=longest + 8, n_batch=longest + 8, verbose=False)
    found: Scores = {}
    for row, ids in prompts.items():
        net.reset()
        net.eval(ids)
        last = llama_cpp.llama_get_logits_ith(net._ctx.ctx, -1)
        logits = np.ctypeslib.as_array(last, shape=(net.n_vocab(),)).astype(np.float64)
        logs = logits - np.logaddexp.reduce(logits)
        found[row] = {
            label: math.log(sum(math.exp(logs[i]) for (i,) in ids)) for label, ids in columns.items()
        }
    return found


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2])
