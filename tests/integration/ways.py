"""A checkout in which the commands of docs/ways/ run here, as a user types them, with these stand-ins:

| in the documents | here |
|---|---|
| a model of the hub | a tiny random one in the hub's cache, under the same id (`MODELS`) |
| the raw files | some rows of samples/, or made-up ones, in `data/raw/NAME/` (`RAW`) |
| datasets of the hub | a small CMMLU in the hub's cache; files for parts of a mixture (`MIXTURES`) |
| hours on GPUs | two steps on a CPU: settings that replace the recipes' own (`SHORT`) |
| `ollama create` | a program that looks for the Modelfile and its GGUF |
| `tuneyard`, `python -m`, `llamafactory-cli` | the same, in forks of processes that have their imports |
"""

import itertools
import math
import shutil
from collections.abc import Callable
from itertools import islice
from pathlib import Path

import yaml

from testing.forks import Forks
from testing.tiny import make_tiny
from tests.conftest import ROOT
from tests.integration.conftest import Checkout, copy_tracked_files
from tests.json_files import write_json, write_lines
from tuneyard.eval.cmmlu.subjects import HUB_ID, REVISION, read_subjects

COMMIT = "0123456789abcdef0123456789abcdef01234567"
MODELS = (
    "Qwen/Qwen2.5-3B-Instruct",
    "Qwen/Qwen2.5-Coder-7B-Instruct",
    "Qwen/Qwen2.5-0.5B",
    "Qwen/Qwen2.5-0.5B-Instruct",
    "Qwen/Qwen2.5-7B-Instruct",
)
"""The hub ids that the pages and their recipes name. Each becomes a tiny Qwen2 with ChatML."""

SHORT: dict[str, object] = {
    "max_steps": 2,
    "save_steps": 2,
    "eval_steps": 2,
    "warmup_steps": 1,
    "cutoff_len": 512,
    "gradient_accumulation_steps": 1,
    "use_cpu": True,
    "bf16": False,
    "preprocessing_num_workers": None,
}
"""Settings of every recipe here. Keys that a recipe lacks are added only if they are in `ALWAYS`."""
ALWAYS = ("max_steps", "use_cpu")
ON_GPUS = ("deepspeed", "quantization_bit", "quantization_method", "optim")
"""Settings that a CPU cannot honour: they are left out."""
REPORTS = {
    "光模块故障": ("网络设备", "交换机端口{n}收光功率低于阈值。", "端口{n}的光模块老化。"),
    "电源故障": ("供电设备", "{n}号机柜一路电源断电。", "{n}号机柜的电源模块损坏。"),
    "磁盘故障": ("存储设备", "存储阵列{n}号盘读写错误增多。", "{n}号盘出现坏道。"),
    "内存溢出": ("主机", "主机{n}的内存使用率达到百分之百。", "主机{n}上的进程没有释放内存。"),
}


def first_rows(name: str) -> Callable[[Path], None]:
    """Writer of the first rows of a sample, in the files that the sample has."""

    def write(folder: Path) -> None:
        for source in sorted((ROOT / "samples" / name).glob("*.jsonl")):
            with source.open(encoding="utf-8") as lines:
                (folder / source.name).write_text("".join(islice(lines, 16)), encoding="utf-8")

    return write


def defect_reports(folder: Path) -> None:
    """Write 20 reports of four subtypes, as the defect-report guide has them."""
    for number, (subtype, (judgement, event, reason)) in itertools.product(range(1, 6), REPORTS.items()):
        report = {
            "instruction": [{"subtype": subtype}],
            "input": {
                "task": "判断故障组件，并说明原因。",
                "event": event.format(n=number),
                "output_format": "判断:<组件>\n\n原因：<原因>",
            },
            "output": {"judgement": judgement, "reason": reason.format(n=number)},
        }
        write_json(folder / f"{subtype}-{number}.json", report)


def questions(question: str, answer: str) -> Callable[[Path], None]:
    """Writer of 40 questions with answers, under these names of fields."""

    def write(folder: Path) -> None:
        rows = [{question: f"{n} + 1?", answer: f"The sum is {n + 1}."} for n in range(40)]
        write_json(folder / "data.json", rows)

    return write


def corpus(folder: Path) -> None:
    """Write 4,000 texts of some 300 tokens: a hundredth of a tenth of them fills a block."""
    texts = [{"text": f"Report {n}. " + "The pump ran for an hour and stopped. " * 12} for n in range(4000)]
    write_lines(folder / "corpus.jsonl", texts)


def alpaca_records(folder: Path) -> None:
    """Write instructions, half of them with an input."""
    rows = []
    for number in range(20):
        extra = f"编号 {number}" if number % 2 else ""
        rows.append(
            {"instruction": f"解释第 {number} 条。", "input": extra, "output": f"第 {number} 条的解释。"}
        )
    write_json(folder / "alpaca_data.json", rows)


def conversations(folder: Path) -> None:
    """Write conversations with a system text."""
    rows = []
    for number in range(20):
        texts = {"system": "你是助手。", "user": f"什么是 {number}？", "assistant": f"{number} 是一个数。"}
        rows.append({"messages": [{"role": role, "content": text} for role, text in texts.items()]})
    write_json(folder / "conversations.json", rows)


RAW: dict[str, Callable[[Path], None]] = {
    "rte": first_rows("rte"),
    "mnli": first_rows("mnli"),
    "defect": defect_reports,
    "qa": questions("question", "answer"),
    "pr": questions("prompt", "response"),
    "io": questions("instruction", "output"),
    "text": corpus,
    "alpaca-text": alpaca_records,
    "messages-text": conversations,
}
"""What writes the files of `data/raw/NAME/`."""


MIXTURES = {"mix-small": 40, "mix-large": 60}
"""The number of rows of each mixture here."""
WORDS = ("pytorch", "FPGA", "protein")
"""Keywords of the three fields into which the large mixture sorts Stack Exchange."""


def make_mixtures(root: Path) -> None:
    """Write the files of the mixtures, and name them in their specs in place of datasets of the hub."""
    count = max(MIXTURES.values())
    asked = [
        {"instruction": f"Report {n}", "input": f"Pump {n}", "output": f"It ran {n} hours."}
        for n in range(count)
    ]
    write_json(root / "my_dataset.json", asked)
    rows: dict[str, list[dict[str, object]]] = {"orca": [], "pubmed": [], "stackexchange": []}
    for number in range(count):
        talk = [
            {"from": "human", "value": f"Count to {number}."},
            {"from": "gpt", "value": f"1 to {number}."},
        ]
        rows["orca"].append({"conversations": talk})
        rows["pubmed"].append(
            {
                "question": f"Does drug {number} help?",
                "context": {"contexts": [f"Trial {number} had two arms."]},
                "long_answer": f"Drug {number} helps a little.",
                "final_decision": "yes",
            }
        )
        for word in WORDS:
            answers = [{"pm_score": 1, "text": f"Read page {number}."}]
            rows["stackexchange"].append({"question": f"What is {word} {number}?", "answers": answers})
    folder = root / "data/raw/hub"
    folder.mkdir(parents=True)
    for name, records in rows.items():
        write_lines(folder / f"{name}.jsonl", records)
    for name, total in MIXTURES.items():
        path = root / f"compiler/specs/{name}.yaml"
        spec = yaml.safe_load(path.read_text(encoding="utf-8"))
        spec["mix"]["total"] = total
        for part, settings in spec["mix"]["parts"].items():
            if "hub" in settings["source"]:
                file = part if part in rows else "stackexchange"
                settings["source"] = {"files": f"data/raw/hub/{file}.jsonl"}
        path.write_text(yaml.safe_dump(spec, sort_keys=False, allow_unicode=True), encoding="utf-8")


OLLAMA = """#!/bin/bash
# ollama create NAME -f MODELFILE
[ "$1" = create ] && [ "$3" = -f ] && cd "$(dirname "$4")" &&
    test -f "$(sed -n 's/^FROM //p' "$(basename "$4")")"
"""


def make_ways(root: Path, forks: Forks) -> Checkout:
    """A copy of the checkout with raw files, short recipes, and a hub's cache of tiny models."""
    checkout = copy_tracked_files(root)
    for name, write_files in RAW.items():
        folder = root / "data/raw" / name
        folder.mkdir(parents=True)
        write_files(folder)
    make_mixtures(root)
    (root / "your_dataset.csv").write_text(
        "title,body\n" + "".join(f"{n},第 {n} 台水泵运行了一个小时。\n" for n in range(40)), encoding="utf-8"
    )
    ollama = forks.checkout_programs / "ollama"
    ollama.write_text(OLLAMA, encoding="utf-8")
    ollama.chmod(0o755)
    for recipe in sorted((root / "recipes").glob("*.yaml")):
        shorten(recipe)
    fill_hub_cache(forks.hub_cache)
    cache_cmmlu(forks.hub_cache)
    checkout.forks = forks
    checkout.variables = {"PATH": f"{forks.checkout_programs}:{forks.env['PATH']}"}
    return checkout


def shorten(recipe: Path) -> None:
    """Give a recipe the settings of `SHORT`. Its header stays: it names the datasets that it is for."""
    text = recipe.read_text(encoding="utf-8")
    header = text.partition("\n\n")[0]
    settings = yaml.safe_load(text)
    for key, value in SHORT.items():
        if key in settings or key in ALWAYS:
            settings[key] = value
    for key in ON_GPUS:
        settings.pop(key, None)
    recipe.write_text(f"{header}\n\n{yaml.safe_dump(settings, sort_keys=False)}", encoding="utf-8")


def fill_hub_cache(cache: Path) -> None:
    """Put a tiny model under each hub id, in the layout of huggingface_hub's cache."""
    tiny = make_tiny(cache / "tiny", tied=False)
    let_answers_end(tiny)
    for name in MODELS:
        folder = cache / f"models--{name.replace('/', '--')}"
        (folder / "refs").mkdir(parents=True)
        (folder / "refs/main").write_text(COMMIT, encoding="utf-8")
        shutil.copytree(tiny, folder / "snapshots" / COMMIT)


def cache_cmmlu(cache: Path) -> None:
    """Put two questions and five examples of each subject of CMMLU into the hub's cache."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    folder = cache / f"datasets--{HUB_ID.replace('/', '--')}"
    reference = folder / "refs" / REVISION
    reference.parent.mkdir(parents=True)
    reference.write_text(COMMIT, encoding="utf-8")
    for subject in read_subjects():
        for split, count in (("dev", 5), ("test", 2)):
            rows = []
            for number in range(count):
                options = {letter: str(number + place) for place, letter in enumerate("ABCD")}
                rows.append({"Question": f"{number} + 1 = ?", **options, "Answer": "B"})
            file = folder / "snapshots" / COMMIT / subject / split / "0000.parquet"
            file.parent.mkdir(parents=True)
            pq.write_table(pa.Table.from_pylist(rows), file)


def let_answers_end(model: Path) -> None:
    """Change a tiny model so that it samples its end token with a probability of about 0.2.

    An untrained one would write 512 tokens each time. All embeddings get a large equal number in their first
    dimension, which the last norm takes to about the root of the width. The end token's row of the head
    turns it into a logit that is worth a quarter of all other tokens together.
    """
    import torch
    from transformers import AutoModelForCausalLM, GenerationConfig

    network = AutoModelForCausalLM.from_pretrained(model)
    width, vocabulary = network.config.hidden_size, network.config.vocab_size
    with torch.no_grad():
        network.get_input_embeddings().weight[:, 0] = 1.0
        network.get_output_embeddings().weight[network.config.eos_token_id, 0] = math.log(
            vocabulary / 4
        ) / math.sqrt(width)
    network.generation_config = GenerationConfig(
        do_sample=True,
        temperature=0.7,
        top_p=0.8,
        top_k=20,
        repetition_penalty=1.05,
        eos_token_id=network.config.eos_token_id,
        pad_token_id=network.config.pad_token_id,
    )
    network.save_pretrained(model)
