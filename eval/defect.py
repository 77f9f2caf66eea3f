"""python -m eval.defect --model models/base --adapter defect-lora --dataset defect_test --out results/defect

Has models judge defect reports, reads 判断 and 原因 out of each answer and holds the judgement against
the reference: overall, by subtype and by type. Writes OUT/<model>/<set>/{evaluation_results.json,
subtype_accuracy.png,results.json,predictions.jsonl}. docs/eval-defect.md explains them.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from tuneyard.core.drawing import plot_texts
from tuneyard.core.errors import ContentError, run, show_value
from tuneyard.core.files import write_json
from tuneyard.core.language import lang_option, tr, tr_counted
from tuneyard.core.number_format import percent
from tuneyard.eval.backends.scorers import Fields
from tuneyard.eval.datasets.dataset import EvalDataset, read_datasets
from tuneyard.eval.metrics.labels import UNKNOWN, accuracy_line
from tuneyard.eval.metrics.reports import Report, judge, parse_report, report_summary
from tuneyard.eval.read.logs.defect import DETAILED
from tuneyard.eval.read.results import Prediction
from tuneyard.eval.read.run import ScoredRun
from tuneyard.eval.scoring.command import Asked, scoring_command
from tuneyard.eval.scoring.options import ScoringRequest
from tuneyard.eval.scoring.task import Job, Task, line_of
from tuneyard.eval.show.plots import draw_lying, kinds_chart
from tuneyard.eval.statistics.rates import hits

PLOT = "subtype_accuracy.png"


@scoring_command(
    "tuneyard data compile defect --source tests/examples/good/defect --out build/defect",
    "tuneyard eval defect --model models/demo-base --data build/defect/defect/test.jsonl "
    "--limit 2 --max-new-tokens 4 --out results/defects",
    own=[lang_option],
    longest=512,
)
def cli(request: ScoringRequest) -> Asked:
    """Judge defect reports and score the judgements, overall, by subtype and by type.

    Answers that hold no judgement are counted apart, and as wrong.
    """
    sets = read_datasets(request.datasets, request.data, request.cluster)
    return Defect({one.name: read_references(one) for one in sets}), sets


def read_references(dataset: EvalDataset) -> list[Report]:
    """Return each record's parsed reference; `ContentError` names the first without subtype or judgement."""
    found = []
    for number, (record, answer) in enumerate(zip(dataset.records, dataset.answers, strict=True), 1):
        place = f"{dataset.path}: record {number}"
        subtype, report = record.get("subtype"), parse_report(answer)
        if not isinstance(subtype, str) or not subtype.strip():
            raise ContentError(f"{place}: subtype: found {show_value(subtype)}, expected a text")
        if report is None or report.judgement == UNKNOWN:
            raise ContentError(
                f"{place}: reference answer {show_value(answer)}, expected 判断:… (and 原因：…) with one "
                f"judgement, which may not be {UNKNOWN!r}"
            )
        found.append(report)
    return found


@dataclass(frozen=True, slots=True)
class Defect(Task):
    """Judging defect reports; the parsed references of each set by its name."""

    references: Mapping[str, list[Report]]
    command = "eval.defect"

    def prediction(self, job: Job, row: int, fields: Fields) -> Prediction:
        """Return the report, the reference and what the answer was taken for."""
        record, reference = job.dataset.records[row], self.references[job.dataset.name][row]
        said = line_of(job, row, fields)
        return {
            **said,
            "expected_output": reference.judgement,
            "expected_reason": reference.reason,
            **judge(reference.judgement, str(said["model_output"])),
            **{name: str(record[name]) for name in ("subtype", "type") if record.get(name) is not None},
        }

    def results(self, job: Job, predictions: list[Prediction]) -> dict[str, object]:
        """Return the figures; write the document's two files."""
        references = self.references[job.dataset.name]
        figures = report_summary(predictions, [reference.judgement for reference in references])
        return {**figures, "numbered_labels": write_defects(job.folder, predictions, figures)}

    def line(self, results: Mapping[str, Any]) -> str:
        """Return accuracy, interval, n, majority, and how many answers did not parse."""
        return f"{accuracy_line(results)}  unparsed {results['unparsed']}"

    def warnings(self, results: Mapping[str, Any]) -> list[str]:
        """Warn of prompts that did not fit, and of labels that the plot could not write."""
        said = Task.warnings(self, results)
        if results["numbered_labels"]:
            said.append(
                f"{results['numbered_labels']} labels are numbers in {PLOT}: no installed font writes them; "
                f"their key is plot_labels in {DETAILED}"
            )
        return said


def write_defects(folder: Path, predictions: Sequence[Prediction], figures: Mapping[str, Any]) -> int:
    """Write both files into OUT/model/set; return how many labels no installed font can write: those are
    numbers in the plot, with their key in the JSON file."""
    model, name = folder.parent.name, folder.name
    gold, predicted = ([str(p[key]) for p in predictions] for key in ("expected_output", "predicted_output"))
    correct = hits(predictions)
    rows, subtypes = ([str(p[key]) for p in predictions] for key in ("row", "subtype"))
    run = ScoredRun(model, name, str(folder), rows, gold, predicted, correct, kinds={"subtype": subtypes})
    with plot_texts([model, name, *figures["subtypes"]]) as typeface:
        title = tr(
            "{model} judges {share} of {reports} of {name} correctly",
            model=model,
            share=percent(figures["accuracy"]),
            reports=tr_counted(figures["n"], "report"),
            name=name,
        )
        draw_lying(replace(kinds_chart([run], "subtype", model), title=title), typeface, folder / PLOT)
    details = {
        "model": model,
        "test_dataset": name,
        "overall_accuracy": figures["accuracy"],
        "ci95": figures["ci95"],
        "total": figures["n"],
        "correct": sum(correct),
        "unparsed": figures["unparsed"],
        "subtype_accuracy": _shares(figures["subtypes"]),
        "type_accuracy": _shares(figures["types"]),
        "plot_labels": {number: label for label, number in typeface.numbered.items()},
        "results": [
            {
                "subtype": one["subtype"],
                "type": one.get("type", one["expected_output"]),
                "user": one["instruction"],
                "expected": one["expected_output"],
                "predicted": one["predicted_output"],
                "is_correct": right,
                "model_output": one["model_output"],
            }
            for one, right in zip(predictions, correct, strict=True)
        ],
    }
    write_json(folder / DETAILED, details)
    return len(typeface.numbered)


def _shares(kinds: Mapping[str, Mapping[str, Any]]) -> dict[str, dict[str, object]]:
    return {
        kind: {
            "accuracy": share["value"],
            "correct": round(share["value"] * share["n"]),
            "total": share["n"],
            "ci95": share["ci95"],
        }
        for kind, share in kinds.items()
    }


if __name__ == "__main__":
    run(cli)
