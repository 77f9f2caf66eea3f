"""Write results of OpenCompass with details: generated answers once and twice, and choices by perplexity."""

import json
import shutil
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from mmengine.config import Config
from opencompass.datasets.custom import CustomDataset
from opencompass.models.base import BaseModel
from opencompass.openicl.icl_evaluator import AccEvaluator, AccwithDetailsEvaluator
from opencompass.openicl.icl_inferencer import GenInferencer, PPLInferencer
from opencompass.openicl.icl_prompt_template import PromptTemplate
from opencompass.openicl.icl_retriever import ZeroRetriever
from opencompass.registry import MODELS
from opencompass.tasks import OpenICLEvalTask, OpenICLInferTask

from tools.logs.questions import ANSWERS, QUESTIONS


@MODELS.register_module()
class Fixed(BaseModel):
    """Answers the made-up questions, without thoughts: OpenCompass compares whole texts."""

    def generate(self, inputs: list[Any], **_unused: Any) -> list[str]:
        return [self.answer(text) for text in inputs]

    def answer(self, text: object) -> str:
        (number,) = (place for place, (question, _unused) in enumerate(QUESTIONS) if question in str(text))
        return ANSWERS[self.path][number]

    def get_ppl(self, inputs: list[Any], *_unused: Any) -> Any:
        return np.array([1.0 if str(text).endswith(self.answer(text)) else 2.0 for text in inputs])

    def get_token_len(self, prompt: object) -> int:
        return len(str(prompt))


def main(folder: Path) -> None:
    """Write the results and predictions of both models into a folder."""
    with tempfile.TemporaryDirectory() as name:
        work = Path(name)
        rows = [{"question": question, "answer": answer} for question, answer in QUESTIONS]
        (work / "even.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        datasets = [
            dataset(work, "even", GenInferencer, AccwithDetailsEvaluator, 1),
            dataset(work, "even_twice", GenInferencer, AccwithDetailsEvaluator, 2),
            dataset(work, "even_plain", GenInferencer, AccEvaluator, 1),
            dataset(work, "even_choices", PPLInferencer, AccEvaluator, 1),
        ]
        for model in ANSWERS:
            config = Config(
                {
                    "models": [{"abbr": model, "type": Fixed, "path": model, "max_out_len": 8}],
                    "datasets": [datasets],
                    "work_dir": str(work / "out"),
                    "eval": {"runner": {"task": {"dump_details": True}}},
                }
            )
            config.models[0].update(batch_size=4, run_cfg={"num_gpus": 0})
            OpenICLInferTask(config).run()
            OpenICLEvalTask(config).run()
        shutil.copytree(work / "out/results", folder / "results", dirs_exist_ok=True)
        for model in ANSWERS:
            (folder / "predictions" / model).mkdir(parents=True, exist_ok=True)
            shutil.copy(work / "out/predictions" / model / "even.json", folder / "predictions" / model)


def dataset(work: Path, name: str, inferencer: Any, evaluator: Any, runs: int) -> dict[str, Any]:
    """The configuration of one dataset: generated answers, or the likeliest of two."""
    template: Any = {"round": [{"role": "HUMAN", "prompt": "{question}"}]}
    if inferencer is PPLInferencer:
        template = {label: f"{{question}} {label}" for label in ("yes", "no")}
    return {
        "abbr": name,
        "type": CustomDataset,
        "path": str(work / "even.jsonl"),
        "n": runs,
        "reader_cfg": {"input_columns": ["question"], "output_column": "answer"},
        "infer_cfg": {
            "prompt_template": {"type": PromptTemplate, "template": template},
            "retriever": {"type": ZeroRetriever},
            "inferencer": {"type": inferencer},
        },
        "eval_cfg": {"evaluator": {"type": evaluator}},
    }


if __name__ == "__main__":
    main(Path(sys.argv[1]))
