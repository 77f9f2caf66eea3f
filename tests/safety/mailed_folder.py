"""A folder as it may come by mail, in which each file does what it can, and the commands that look at it."""

import json
from pathlib import Path

from tests.exams import HEAD, write_exam
from tests.json_files import read_json, write_json, write_lines
from tests.tiny import make_tiny, write_adapter
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
CASES: dict[str, str] = {
    "adapter export": "adapter export adapter --to hub --repo org/a --dry-run",
    "adapter extract": "adapter extract tuned --base model --rank 2 --out OUT",
    "adapter fuse": "adapter fuse adapter --base model --out OUT",
    "adapter merge": "adapter merge adapter=0.5 other=0.5 --out OUT",
    "adapter rename": "adapter rename adapter --base model --out OUT",
    "adapter serve": "adapter serve adapter --base model --dry-run",
    "adapter show": "adapter show adapter other",
    "data check": "data check qa --source a.jsonl",
    "data compile": "data compile qa --source a.jsonl --out OUT",
    "data diff": "data diff dataset_info/a.json b.json",
    "data init": "data init a.jsonl --out OUT/spec.yaml",
    "data list": "data list",
    "data remove": "data remove nothing",
    "data show": "data show qa --source a.jsonl",
    "data stats": "data stats dataset_info/a.json",
    "data verify": "data verify a",
    "data view": "data view a --model model --template qwen --out OUT",
    "eval ab ask": "eval ab ask --model model --adapter a=adapter --max-new-tokens 2 --limit 2 --dataset a "
    "--out OUT",
    "eval ab tally": "eval ab tally sheet.csv --key key.json --out OUT",
    "eval chat": "eval chat --model model --once hello --max-new-tokens 2",
    "eval compare": "eval compare log.csv --out OUT",
    "eval prove": "eval prove --model model --template qwen --limit 2 --dataset a --out OUT",
    "eval cmmlu": "eval cmmlu --model model --limit 2 --data exam --shots 1 --out OUT",
    "eval defect": "eval defect --model model --limit 2 --data reports.jsonl --max-new-tokens 2 --out OUT",
    "eval dialogue": "eval dialogue --model model --limit 2 --data talks.jsonl --max-new-tokens 2 --out OUT",
    "eval tools": "eval tools --model model --template qwen --limit 2 --data calls.jsonl --max-new-tokens 2 "
    "--out OUT",
    "eval sweep": "eval sweep --model model --adapter a=adapter --adapter b=other --dataset a --out OUT",
    "eval nli": "eval nli --model model --adapter a=adapter --limit 2 --dataset a --out OUT",
    "eval preference": "eval preference --model model --limit 2 --data pairs.json --out OUT",
    "eval qa": "eval qa --model model --limit 2 --dataset a --max-new-tokens 2 --out OUT",
    "eval suite": "eval suite suite.yaml --model model --out OUT",
    "eval text": "eval text --model model --limit 2 --dataset a --out OUT",
    "recipe best": "recipe best OUT-trained",
    "recipe check": "recipe check r.yaml",
    "recipe new": "recipe new --dataset a --model model --for cpu --out OUT/r.yaml",
    "recipe plan": "recipe plan r.yaml --for A100-80",
    "recipe sweep": "recipe sweep r.yaml lora_rank=4,8 --metric train_loss --out OUT --dry-run",
    "recipe train": "recipe train r.yaml output_dir=OUT",
}
"""By command: its words in the mailed folder. It ends with exit code 0, and may write below OUT alone."""
CODES = {"adapter rename": 2, "data remove": 2, "data diff": 1, "eval prove": 1}
"""Exit codes that are not 0: nothing to rename, no dataset to remove, differences, unequal prompts."""
NO_FILES = {"demo", "doctor", "recipe base"}
"""Commands that read no file of a mailed folder."""


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
