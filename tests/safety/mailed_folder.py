"""A folder as it may come by mail, in which each file does what it can."""

import json
from pathlib import Path

from testing.tiny import make_tiny, write_adapter
from tests.exams import HEAD, write_exam
from tests.json_files import read_json, write_json, write_lines
from tuneyard.eval.ab.ratings import CRITERIA
from tuneyard.eval.ab.sheet import COLUMNS

ATTENTION = {
    f"model.layers.{layer}.self_attn.{name}_proj": (outputs, 64)
    for layer in (0, 1)
    for name, outputs in (("q", 64), ("v", 32))
}
SECRET = "hf_mailedsecret0123456789"
CONTROL = "a\x1b]0;owned\x07\x9bc\u202e"
MODULES = ("socket", "json", "random", "queue", "yaml", "numpy", "torch", "sitecustomize", "tuneyard")
MODEL = """
open({marker!r}, "a").write("model code ")
from transformers import PreTrainedTokenizerFast, Qwen2Config, Qwen2ForCausalLM

class MailedTokenizer(PreTrainedTokenizerFast):
    pass

class MailedConfig(Qwen2Config):
    model_type = "qwen2"

class MailedModel(Qwen2ForCausalLM):
    config_class = MailedConfig
"""
SUITE = "questions: {command: qa, data: [dataset_info/a.json], max-new-tokens: 2, limit: 2}\n"


def make_mailed(folder: Path) -> Path:
    """Write the folder. Its code writes into the file `ran` beside it once it runs."""
    marker = str(folder.parent / "ran")
    folder.mkdir()
    _write_model(folder / "model", marker)
    _write_model(folder / "tuned", marker, seed=1)
    for number, name in enumerate(("adapter", "other")):
        _write_trained_adapter(folder / name, number)
    rows = []
    for number in range(12):
        label = ("yes", "no")[number % 2]
        rows.append({"instruction": f"Is {number} even? {CONTROL}", "input": "", "output": label})
    (folder / "dataset_info").mkdir()
    write_json(folder / "dataset_info/a.json", rows)
    write_json(folder / "b.json", rows[:10])
    write_lines(
        folder / "a.jsonl", [{"question": row["instruction"], "answer": row["output"]} for row in rows]
    )
    pairs = [{**row, "chosen": "yes", "rejected": CONTROL} for row in rows]
    write_json(folder / "pairs.json", pairs)
    entries = {"a": {"file_name": "a.json"}, CONTROL: {"file_name": CONTROL}}
    write_json(folder / "dataset_info/dataset_info.json", entries)
    _write_recipe(folder)
    _write_questions(folder)
    _write_results(folder)
    for name in MODULES:
        (folder / f"{name}.py").write_text(f"open({marker!r}, 'a').write('{name} ')\n")
    return folder


def _write_model(folder: Path, marker: str, seed: int = 0) -> None:
    make_tiny(folder, seed=seed)
    (folder / "mailed.py").write_text(MODEL.format(marker=marker))
    classes = {
        "config.json": {"AutoConfig": "mailed.MailedConfig", "AutoModelForCausalLM": "mailed.MailedModel"},
        "tokenizer_config.json": {"AutoTokenizer": [None, "mailed.MailedTokenizer"]},
    }
    for name, auto_map in classes.items():
        write_json(folder / name, {**read_json(folder / name), "auto_map": auto_map})


def _write_trained_adapter(folder: Path, seed: int) -> None:
    write_adapter(folder, shapes=ATTENTION, seed=seed, base_model_name_or_path="model")
    settings = {"run_name": CONTROL, "hub_token": SECRET, "template": "qwen", "dataset": CONTROL}
    data = [{"dataset": CONTROL, "file": "../../nowhere.json", "sha256": None}]
    write_json(folder / "training.json", {"inputs": {"settings": settings, "data": data}})


def _write_recipe(folder: Path) -> None:
    settings = {
        "model_name_or_path": "model", "trust_remote_code": True, "stage": "sft", "do_train": True,
        "finetuning_type": "lora", "dataset_dir": "dataset_info", "dataset": "a", "template": "qwen",
        "cutoff_len": 128, "output_dir": "OUT", "max_steps": 1, "bf16": False, "report_to": "none",
        "run_name": "mailed", "hf_hub_token": SECRET,
    }  # fmt: skip
    lines = [f"{key}: {json.dumps(value)}\n" for key, value in settings.items()]
    (folder / "r.yaml").write_text("".join(lines))
    (folder / "suite.yaml").write_text(
        "questions: {command: qa, data: [dataset_info/a.json], max-new-tokens: 2, limit: 2}\n"
    )
    steps = [{"step": step, "epoch": 1.0, "eval_loss": 2.0 / step} for step in (1, 2)]
    state = {"log_history": steps, "global_step": 2, CONTROL: CONTROL}
    (folder / "OUT-trained/checkpoint-1").mkdir(parents=True)
    write_json(folder / "OUT-trained/trainer_state.json", state)


def _write_questions(folder: Path) -> None:
    """Rows for each scoring command that has a form of its own."""
    write_exam(folder / "exam", test=f"{HEAD}0,1+1={CONTROL}?,1,2,3,4,B\n")
    question = {"role": "user", "content": f"任务：判断\n\n事件：\n{CONTROL}\n\n输出格式：\n判断:<组件>"}
    answer = {"role": "assistant", "content": "判断:主机\n\n原因：见上"}
    write_lines(folder / "reports.jsonl", [{"subtype": CONTROL, "text": [question, answer]}] * 2)
    talk = [{"from": ("human", "gpt")[n % 2], "value": f"word {n} {CONTROL}"} for n in range(4)]
    write_lines(folder / "talks.jsonl", [{"conversations": talk}] * 2)
    call = {"from": "function_call", "value": json.dumps({"name": CONTROL, "arguments": {CONTROL: 1}})}
    tool = {"name": CONTROL, "parameters": {"properties": {CONTROL: {"type": "integer"}}}}
    calls = {"conversations": [{"from": "human", "value": "Add 1."}, call], "tools": json.dumps([tool])}
    write_lines(folder / "calls.jsonl", [calls] * 2)


def _write_results(folder: Path) -> None:
    lines = ["id,gold,prediction,model,dataset"]
    for model in ("base", CONTROL.replace("\r", ""), "=cmd|' /C calc'!A0", "../../x"):
        lines += [
            f'{number},yes,{("yes", "no")[number % 3 == 0]},"{model}","{CONTROL}"' for number in range(12)
        ]
    (folder / "log.csv").write_text("\n".join(lines) + "\n")
    marks = ",".join("5" * len(CRITERIA))
    sheet = "".join(f"r{number},{CONTROL},,x,{marks},\n" for number in (1, 2))
    (folder / "sheet.csv").write_text(f"{','.join(COLUMNS)}\n{sheet}")
    models = ["base", CONTROL]
    answers = {f"r{place}": {"prompt": 1, "model": model} for place, model in enumerate(models, 1)}
    write_json(folder / "key.json", {"models": models, "answers": answers})
