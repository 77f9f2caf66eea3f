"""Write logs of inspect_ai: two models on one task, and scores of all kinds in two epochs."""

import sys
from pathlib import Path
from typing import Any

import tiktoken
from inspect_ai import Epochs, Task, eval
from inspect_ai.dataset import Sample
from inspect_ai.model import GenerateConfig, ModelOutput, get_model
from inspect_ai.scorer import Score, accuracy, match, mean, scorer
from inspect_ai.solver import generate

from tools.logs.questions import QUESTIONS, outputs

LETTERS = ("C", "I", "P", "N")


class Words:
    """Counts tokens without the vocabulary that tiktoken downloads."""

    def encode(self, text: str, **_unused: Any) -> list[str]:
        return text.split()


@scorer(metrics=[mean()])
def length() -> Any:
    """Number of characters of the answer."""

    async def score(state: Any, _target: Any) -> Any:
        return Score(value=len(state.output.completion))

    return score


@scorer(metrics=[accuracy()])
def grade() -> Any:
    """Each of inspect's letters in turn."""

    async def score(state: Any, _target: Any) -> Any:
        return Score(value=LETTERS[int(state.sample_id) % 4], answer=state.output.completion)

    return score


@scorer(metrics={"*": [mean()]})
def parts() -> Any:
    """Several values of one scorer."""

    async def score(_state: Any, _target: Any) -> Any:
        return Score(value={"form": "C", "tone": 0.25})

    return score


def main(folder: Path) -> None:
    """Write all logs into a folder."""
    words: Any = lambda *_unused: Words()  # noqa: E731  # in place of two functions of tiktoken
    tiktoken.get_encoding = tiktoken.encoding_for_model = words
    samples = [
        Sample(id=number, input=question, target=answer)
        for number, (question, answer) in enumerate(QUESTIONS, 1)
    ]
    even = Task(name="even", dataset=samples, solver=generate(), scorer=[length(), match()])
    for model in ("base", "tuned"):
        run(even, model, folder)
    graded = Task(
        name="graded",
        dataset=samples[:4],
        solver=generate(),
        scorer=[grade(), parts()],
        epochs=Epochs(2, "mean"),
        config=GenerateConfig(seed=7),
    )
    run(graded, "tuned", folder)


def run(task: Task, model: str, folder: Path) -> None:
    """Run a task with the answers of a model."""
    answers = (ModelOutput.from_content(f"mockllm/{model}", text) for text in outputs(model) * 2)
    mock = get_model(f"mockllm/{model}", custom_outputs=answers, memoize=False)
    eval(task, model=mock, log_dir=str(folder), log_format="eval", display="none", max_connections=1)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
