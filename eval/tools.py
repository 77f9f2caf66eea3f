"""python -m eval.tools --model models/base --adapter tools-lora --dataset tools_eval --out results/tools

Has models answer every turn of conversations with tools, and holds what they call against the data: function,
arguments, number of calls, valid JSON, and no call where none is due. Writes
OUT/<model>/<set>/{results.json,predictions.jsonl}. docs/eval-tools.md explains them.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from tuneyard.core.calls import WrongValueError, calls_of
from tuneyard.core.errors import ContentError, run
from tuneyard.core.prompt import Conversation, Message
from tuneyard.core.records import ANSWERS
from tuneyard.eval.backends.scorers import Fields
from tuneyard.eval.datasets.dataset import INDEPENDENT, EvalDataset, read_datasets
from tuneyard.eval.datasets.prompts import other_prompt
from tuneyard.eval.metrics.labels import UNKNOWN, accuracy_line
from tuneyard.eval.metrics.tools import judge, tool_summary
from tuneyard.eval.read.results import Prediction
from tuneyard.eval.scoring.candidates import Opened
from tuneyard.eval.scoring.command import Asked, scoring_command
from tuneyard.eval.scoring.options import ScoringRequest
from tuneyard.eval.scoring.pipeline import warn
from tuneyard.eval.scoring.task import Figure, Job, Task, figures_of, line_of, share_line

COMPARED = 20  # turns whose prompts are held against those of training
SHARES = {
    "function": "right function",
    "arguments": "right arguments",
    "number": "right number of calls",
    "valid_json": "valid JSON",
    "no_call": "no call where none is due",
}


@scoring_command(
    "tuneyard data compile tools --source tests/examples/good/tools --out build/tools",
    "tuneyard eval tools --model models/demo-base --template qwen "
    "--data build/tools/tools/tools-eval.jsonl --limit 2 --max-new-tokens 4 --out results/calls",
    longest=512,
)
def cli(request: ScoringRequest) -> Asked:
    """Score calls of tools: function, arguments, number, valid JSON, no call where none is due.

    Every turn of the model's in a conversation is an example, prompted with the data's own turns before it.
    """
    read = read_datasets(request.datasets, request.data, request.cluster)
    sets = [turns_of(one, request.cluster != INDEPENDENT) for one in read]
    expected = {one.name: expected_of(one) for one in sets}
    talks = [talk.messages for one in sets for talk in one.conversations[:COMPARED]]
    return Tools(expected, talks, request.template), sets


def turns_of(dataset: EvalDataset, clustered: bool = True) -> EvalDataset:
    """Return a set with an example for each turn of the model's, in conversations that declare tools or call.
    Turns of one conversation are no independent rows: they make a cluster, unless the set has other ones, or
    they are not to be `clustered`."""
    rows, talks = [], []
    for row, talk in enumerate(dataset.conversations):
        whole = [*talk.messages, {"role": talk.role, "content": talk.answer}]
        if "tools" in whole[0] or any(turn["role"] == "function" for turn in whole):
            turns = [n for n, turn in enumerate(whole) if turn["role"] in ANSWERS and turn["content"]]
            talks += [Conversation(whole[:n], whole[n]["content"], whole[n]["role"]) for n in turns]
            rows += [row] * len(turns)
    if not rows:
        raise ContentError(
            f"{dataset.path}: no conversation has tools and an answer; compile it by a spec with a column of "
            "`is: tools`, as tools"
        )
    taken = replace(dataset.take(rows), conversations=talks)
    own = clustered and not taken.clusters
    return replace(taken, cluster="conversation", clusters=list(map(str, rows))) if own else taken


def expected_of(dataset: EvalDataset) -> list[str]:
    """Return what each turn of the data calls, as text; `ContentError` where a call is none."""
    try:
        return [str(_judged(talk, talk.answer)["expected_output"]) for talk in dataset.conversations]
    except WrongValueError as error:
        raise ContentError(f"{dataset.path}: {error}; compile it again, which names the place") from error


def _judged(talk: Conversation, answer: str) -> dict[str, object]:
    calls = calls_of(talk.answer) if talk.role == "function" else []
    return judge(calls, answer, talk.messages[0].get("tools", ""))


@dataclass(frozen=True, slots=True)
class Tools(Task):
    """Calls of tools; what is expected of each set's turns, and prompts to compare with training's."""

    expected: Mapping[str, Sequence[str]]
    talks: Sequence[list[Message]]
    template: str | None
    command = "eval.tools"

    def prompted(self, opened: Opened) -> Opened:
        """Warn where an adapter was trained on other ids than these prompts have."""
        if tokenizer := getattr(opened.model, "tokenizer", None):
            for candidate in opened.candidates:
                for folder in dict.fromkeys(part.adapter.folder for part in candidate.parts):
                    trained = (tokenizer, folder, candidate.prompting, self.template)
                    told = other_prompt(*trained, self.talks)
                    if told and not other_prompt(*trained):  # which was said when the models were opened
                        warn(f"adapter {told}")
        return opened

    def prediction(self, job: Job, row: int, fields: Fields) -> Prediction:
        """Return the raw answer, what it calls and what is expected; of a refused prompt nothing is right."""
        line = line_of(job, row, fields)
        judged = _judged(job.rows[row], str(line["model_output"]))
        if "refused" in fields:
            wrong = {"calls": None, "right_function": False, "right_number": False}
            judged |= {"predicted_output": UNKNOWN, **wrong}
        return {**line, **judged}

    def results(self, job: Job, predictions: list[Prediction]) -> dict[str, object]:
        """Return the figures, overall and by tool."""
        return tool_summary(predictions, self.expected[job.dataset.name])

    def line(self, results: Mapping[str, Any]) -> str:
        """Return a line for each tool, then all shares."""
        tools = [f"{name}  {_shares(part)}" for name, part in results["tools"].items()]
        return "\n  ".join(["", *tools, f"{accuracy_line(results)}  {_shares(results)}"])

    def figures(self, results: Mapping[str, Any]) -> dict[str, Figure]:
        """Return accuracy and the shares."""
        shares = {told: results[name] for name, told in SHARES.items()}
        return Task.figures(self, results) | figures_of(shares)


def _shares(part: Mapping[str, Any]) -> str:
    return "  ".join(
        f"{said} {share_line(one)} of {one['n']}" for name, said in SHARES.items() if (one := part.get(name))
    )


if __name__ == "__main__":
    run(cli)
