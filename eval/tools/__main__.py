"""tuneyard eval tools --model models/base --adapter tools-lora --dataset tools_eval --out results/tools

Generates every turn of conversations with tools, and compares the tool calls with the data's: function,
arguments, number of calls, valid JSON, and no call when none is expected. Writes
OUT/<model>/<dataset>/{results.json,predictions.jsonl}. docs/eval-tools.md explains them.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from tuneyard.core.cli.run import run_command
from tuneyard.core.errors import ContentError
from tuneyard.core.language.message import _, joined
from tuneyard.core.llamafactory.prompt import Messages, PromptAndAnswer, tool_format
from tuneyard.core.records import ANSWERS
from tuneyard.core.records.calls import WrongValueError, calls_of
from tuneyard.core.records.prediction_record import Prediction
from tuneyard.eval.data.dataset import INDEPENDENT, EvalDataset
from tuneyard.eval.figures.labels import UNKNOWN
from tuneyard.eval.models.batch_plan import Fields
from tuneyard.eval.report.lines import accuracy_line, labelled_shares
from tuneyard.eval.runs.results import PREDICTIONS, Results
from tuneyard.eval.scoring.command import Declared, scoring_command
from tuneyard.eval.scoring.evaluation import Evaluation, Job, line_of
from tuneyard.eval.scoring.request import ScoringRequest
from tuneyard.eval.statistics.rates import is_answered
from tuneyard.eval.tools.calls import JudgedCalls, judge, tool_summary

if TYPE_CHECKING:
    from tuneyard.eval.scoring.candidates import Opened

COMPARED = 20  # turns whose prompts are compared with those of training
SHARES = {
    "function": _("right function"),
    "arguments": _("right arguments"),
    "number": _("right number of calls"),
    "valid_json": _("valid JSON"),
    "no_call": _("no call when none is expected"),
}


@scoring_command(
    "tools",
    "tuneyard data compile tools --source tests/examples/good/tools --out build/tools",
    "tuneyard eval tools --model models/demo-base --template qwen "
    "--data build/tools/tools/tools-eval.jsonl --limit 2 --max-new-tokens 4 --out results/calls",
    longest=512,
)
def cli(request: ScoringRequest, datasets: Sequence[EvalDataset]) -> Declared:
    """Score tool calls: function, arguments, number, valid JSON, and no call when none is expected.

    Every turn of the model in a conversation is an example. Its prompt has the data's own turns before it.
    """
    clustered = request.cluster != INDEPENDENT
    turns = [turns_of(dataset, clustered) for dataset in datasets]
    prompts: list[Messages] = []
    for dataset in turns:
        check_calls(dataset)
        prompts += [example.messages for example in dataset.conversations[:COMPARED]]
    chosen_format = None
    if request.template and not request.backend_kind.is_server:  # a server's template is its own
        chosen_format = tool_format(request.template)
    return Tools(prompts, request.template, chosen_format), turns


def turns_of(dataset: EvalDataset, clustered: bool = True) -> EvalDataset:
    """Make an example of each turn of the model, in conversations that declare or call tools.

    The turns of one conversation are not independent. They make a cluster, unless the dataset has other
    clusters or `clustered` is False.
    """
    rows: list[int] = []
    examples: list[PromptAndAnswer] = []
    for row, conversation in enumerate(dataset.conversations):
        answer = {"role": conversation.role, "content": conversation.answer}
        turns = [*conversation.messages, answer]
        if "tools" not in turns[0] and not any(turn["role"] == "function" for turn in turns):
            continue
        for place, turn in enumerate(turns):
            if turn["role"] in ANSWERS and turn["content"]:
                examples.append(PromptAndAnswer(turns[:place], turn["content"], turn["role"]))
                rows.append(row)
    if not rows:
        raise ContentError(
            _(
                "{path}: no conversation has tools and an answer; compile it by a spec with a column "
                "of `is: tools`, as tools",
                path=dataset.path,
            )
        )
    by_turn = replace(dataset.take(rows), conversations=examples)
    if not clustered or by_turn.clusters:
        return by_turn
    return replace(by_turn, cluster="conversation", clusters=[str(row) for row in rows])


def check_calls(dataset: EvalDataset) -> None:
    """Raise `ContentError` if a call of the data is not valid."""
    try:
        for example in dataset.conversations:
            _judged(example, example.answer)
    except WrongValueError as error:
        raise ContentError(
            _("{path}: {error}; compile it again, which names the place", path=dataset.path, error=error)
        ) from error


def _judged(example: PromptAndAnswer, answer: str, chosen_format: str | None = None) -> JudgedCalls:
    calls = calls_of(example.answer) if example.role == "function" else []
    return judge(calls, answer, example.messages[0].get("tools", ""), chosen_format)


@dataclass(frozen=True, slots=True)
class Tools(Evaluation):
    """Tool calls: prompts to compare with training's, and the form that --template gives to calls."""

    tests = _("tool calls")
    special_tokens = True
    prompts: Sequence[Messages]
    template: str | None
    tool_format: str | None = None

    def check_models(self, opened: "Opened") -> None:
        """Warn if an adapter was trained on other token ids than these prompts have."""
        from tuneyard.eval.scoring.candidates import warn_of_other_prompts

        warn_of_other_prompts(opened.backend.tokenizer, opened.candidates, self.template, self.prompts)

    def prediction(self, job: Job, row: int, fields: Fields) -> Prediction:
        """The raw answer, its calls and the expected ones. Nothing is right without an answer."""
        answered = line_of(job, row, fields)
        judged = _judged(job.rows[row], answered["model_output"], self.tool_format)
        line: Prediction = {**answered, **judged}
        if not is_answered(fields):
            line["predicted_output"], line["calls"] = UNKNOWN, None
            line["right_function"] = line["right_number"] = False
        return line

    def results(self, job: Job, predictions: list[Prediction]) -> dict[str, object]:  # noqa: ARG002
        """Figures, overall and by tool."""
        return tool_summary(predictions)

    def warnings(self, results: Results) -> list[str]:
        """Also warn if no call is correct, since turns without a call may be."""
        warnings = Evaluation.warnings(self, results)
        arguments = results["arguments"]
        if arguments and arguments["value"] == 0 and results["accuracy"] > 0:
            warnings.append(
                _(
                    "no call is correct; read some answers in {file}, since their form or the template "
                    "may be wrong",
                    file=PREDICTIONS,
                )
            )
        return warnings

    def line(self, results: Results) -> str:
        """A line for each tool, then all shares."""
        lines: list[str] = [""]
        for name, part in results["tools"].items():
            lines.append(joined([name, *labelled_shares(part, SHARES)], "  "))
        lines.append(joined([accuracy_line(results), *labelled_shares(results, SHARES)], "  "))
        return joined(lines, "\n  ")


if __name__ == "__main__":
    run_command(cli)
