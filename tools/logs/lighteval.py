"""Write details of lighteval: two models on a task with generated answers and one with choices."""

import json
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

MODEL = """
from lighteval.models.abstract_model import LightevalModel
from lighteval.models.model_output import ModelResponse
from lighteval.utils.cache_management import SampleCache

from tools.logs.questions import ANSWERS, outputs

class Fixed(LightevalModel):
    tokenizer, add_special_tokens, max_length = None, False, 2048

    def __init__(self, config):
        self.config, self.model = config, config.model_name.split("/")[-1]
        self._cache = SampleCache(config)

    def greedy_until(self, docs):
        texts = outputs(self.model)
        return [ModelResponse(input=doc.query, text=[texts[int(doc.id)]]) for doc in docs]

    def loglikelihood(self, docs):
        return [ModelResponse(input=doc.query, logprobs=self.logs(doc)) for doc in docs]

    def logs(self, doc):
        chosen = ANSWERS[self.model][int(doc.id)]
        return [-0.5 if choice.strip() == chosen else -1.5 for choice in doc.choices]

    loglikelihood_rolling = loglikelihood
"""
TASKS = """
from lighteval.metrics.metrics import Metrics
from lighteval.tasks.lighteval_task import LightevalTaskConfig
from lighteval.tasks.requests import Doc

def generated(line, task_name=None):
    return Doc(task_name=task_name, query=line["question"], choices=[line["answer"]], gold_index=0)

def chosen(line, task_name=None):
    gold = ["yes", "no"].index(line["answer"])
    return Doc(task_name=task_name, query=line["question"], choices=[" yes", " no"], gold_index=gold)

def task(name, function, metrics):
    return LightevalTaskConfig(
        name=name, prompt_function=function, metrics=metrics, hf_repo=DATA, hf_subset="default",
        hf_avail_splits=["train"], evaluation_splits=["train"], few_shots_split=None, few_shots_select=None,
        generation_size=8, stop_sequence=[],
    )

TASKS_TABLE = [
    task("even", generated, [Metrics.f1_score, Metrics.exact_match]),
    task("even_choices", chosen, [Metrics.loglikelihood_acc]),
]
"""
RUN = """
import types
import requests

requests.get = lambda *_, **__: types.SimpleNamespace(status_code=404)  # a table of tinyBenchmarks
from lighteval.__main__ import app

app()
"""


def main(folder: Path) -> None:
    """Write the details of both models into a folder."""
    from tools.logs.questions import QUESTIONS

    with tempfile.TemporaryDirectory() as name:
        work = Path(name)
        (work / "data").mkdir()
        lines = [json.dumps({"question": question, "answer": answer}) for question, answer in QUESTIONS]
        (work / "data/train.jsonl").write_text("\n".join(lines) + "\n")
        (work / "model.py").write_text(MODEL)
        (work / "tasks.py").write_text(f"DATA = {str(work / 'data')!r}\n{TASKS}")
        for model in ("base", "tuned"):
            command = ["custom", f"made-up/{model}", str(work / "model.py"), "even|0,even_choices|0"]
            options = [
                "--custom-tasks",
                str(work / "tasks.py"),
                "--save-details",
                "--output-dir",
                str(work / "out"),
            ]
            subprocess.run([sys.executable, "-c", RUN, *command, *options], check=True)
        shutil.copytree(work / "out/details", folder / "details", dirs_exist_ok=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
