"""Write reviews of EvalScope: two models on questions with choices, and graded answers that repeat."""

import json
import shutil
import sys
import tempfile
from pathlib import Path

from evalscope import TaskConfig, run_task
from evalscope.api.model import ModelOutput

from tools.logs.questions import ANSWERS, QUESTIONS, THOUGHTS, outputs

LETTERS = {"yes": "A", "no": "B"}


def main(folder: Path) -> None:
    """Write the reviews and reports of both models into a folder."""
    with tempfile.TemporaryDirectory() as name:
        work = Path(name)
        choices = [
            {"question": question, "A": "yes", "B": "no", "answer": LETTERS[answer]}
            for question, answer in QUESTIONS
        ]
        write(work / "choices/even_val.jsonl", choices)
        graded = [{"query": question, "response": answer} for question, answer in QUESTIONS[:2]]
        write(work / "graded/even.jsonl", graded)
        for model, answers in ANSWERS.items():
            texts = [f"{THOUGHTS[model]}答案：{LETTERS[answer]}" for answer in answers]
            run(work, "general_mcq", work / "choices", "acc", model, texts)
        run(work, "general_qa", work / "graded", "Rouge", "tuned", outputs("tuned")[:2] * 2)
        for part in ("reviews", "reports/base", "predictions/base"):
            shutil.copytree(work / "out" / part, folder / part, dirs_exist_ok=True)


def write(path: Path, rows: list[dict[str, str]]) -> None:
    """Write JSON Lines."""
    path.parent.mkdir()
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def run(work: Path, benchmark: str, data: Path, metric: str, model: str, texts: list[str]) -> None:
    """Run one benchmark on a local file with the texts of a model; graded answers twice."""
    answers = [ModelOutput.from_content(model=model, content=text) for text in texts]
    run_task(
        TaskConfig(
            model=model,
            model_id=model,
            eval_type="mock_llm",
            model_args={"custom_outputs": answers},
            datasets=[benchmark],
            dataset_args={
                benchmark: {"local_path": str(data), "subset_list": ["even"], "metric_list": [metric]}
            },
            repeats=2 if metric == "Rouge" else 1,
            eval_batch_size=1,
            work_dir=str(work / "out"),
            no_timestamp=True,
        )
    )


if __name__ == "__main__":
    main(Path(sys.argv[1]))
