"""tuneyard eval defect --model models/base --adapter defect-lora --dataset defect_test --out results/defect

Prompts models to judge defect reports, parses 判断 and 原因 in each answer and compares the judgement with
the reference: overall, by subtype and by type. Writes OUT/<model>/<dataset>/{evaluation_results.json,
subtype_accuracy.png,results.json,predictions.jsonl}. docs/eval-defect.md explains them.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from tuneyard.core.cli.run import run_command
from tuneyard.core.drawing.plots import PLOTTING, plotting, save
from tuneyard.core.errors import ContentError, import_early, show_value, unexpected
from tuneyard.core.files import write_json
from tuneyard.core.language.message import _, counted, tr
from tuneyard.core.language.number_format import percent
from tuneyard.core.records.prediction_record import Prediction
from tuneyard.eval.data.dataset import EvalDataset
from tuneyard.eval.defect.reports import Report, judge, parse_report, report_summary
from tuneyard.eval.figures.labels import UNKNOWN
from tuneyard.eval.models.batch_plan import Fields
from tuneyard.eval.report.lines import accuracy_line
from tuneyard.eval.runs.logs.defect import DETAILED
from tuneyard.eval.runs.results import Results
from tuneyard.eval.runs.scored_run import ScoredRun
from tuneyard.eval.scoring.command import Declared, scoring_command
from tuneyard.eval.scoring.evaluation import Evaluation, Job, line_of
from tuneyard.eval.scoring.request import ScoringRequest
from tuneyard.eval.statistics.rates import hits

PLOT = "subtype_accuracy.png"


@scoring_command(
    "defect",
    "tuneyard data compile defect --source tests/examples/good/defect --out build/defect",
    "tuneyard eval defect --model models/demo-base --data build/defect/defect/test.jsonl "
    "--limit 2 --max-new-tokens 4 --out results/defects",
    longest=512,
)
def cli(
    request: ScoringRequest,  # noqa: ARG001  the same for all commands
    datasets: Sequence[EvalDataset],
) -> Declared:
    """Judge defect reports and score the judgements, overall, by subtype and by type.

    Answers without a judgement are counted separately, and as incorrect.
    """
    import_early(PLOTTING)
    return Defect({dataset.name: read_references(dataset) for dataset in datasets}), datasets


def read_references(dataset: EvalDataset) -> list[Report]:
    """Parse each record's reference; `ContentError` for the first without a subtype or a judgement."""
    references = []
    for row, answer in enumerate(dataset.answers):
        place = dataset.place(row)
        subtype, report = dataset.records[row].get("subtype"), parse_report(answer)
        if not isinstance(subtype, str) or not subtype.strip():
            raise unexpected(place, "subtype", subtype, _("a text, as in the records of spec defect"))
        if report is None or report.judgement == UNKNOWN:
            raise ContentError(
                _(
                    "{place}: reference answer {answer}, expected 判断:… (and 原因：…) with one judgement, "
                    "which may not be {unknown!r}",
                    place=place,
                    answer=show_value(answer),
                    unknown=UNKNOWN,
                )
            )
        references.append(report)
    return references


@dataclass(frozen=True, slots=True)
class Defect(Evaluation):
    """Judging defect reports: the parsed references of each dataset by its name."""

    references: Mapping[str, list[Report]]

    def prediction(self, job: Job, row: int, fields: Fields) -> Prediction:
        """The report, the reference, and the judgement and reason that were parsed from the answer."""
        record, reference = job.dataset.records[row], self.references[job.dataset.name][row]
        line = line_of(job, row, fields)
        judged = judge(reference.judgement, line["model_output"])
        line["expected_output"] = reference.judgement
        line["expected_reason"] = reference.reason
        line["predicted_output"] = judged.judgement
        line["reason"] = judged.reason
        if record.get("subtype") is not None:
            line["subtype"] = str(record["subtype"])
        if record.get("type") is not None:
            line["type"] = str(record["type"])
        return line

    def results(self, job: Job, predictions: list[Prediction]) -> dict[str, object]:
        """Compute the figures; write the guide's two files."""
        figures = report_summary(predictions)
        write_defects(job.folder, predictions, figures)
        return figures

    def line(self, results: Results) -> str:
        """Accuracy, interval, n, majority, and the number of answers that do not parse."""
        return _("{figures}  unparsed {count}", figures=accuracy_line(results), count=results["unparsed"])


def write_defects(folder: Path, predictions: Sequence[Prediction], figures: Results) -> None:
    """Write both files into OUT/MODEL/DATASET."""
    from tuneyard.eval.report.plots import draw_bars, kinds_chart

    model, name = folder.parent.name, folder.name
    correct = hits(predictions)
    scored = ScoredRun(
        model,
        name,
        str(folder),
        [str(line["row"]) for line in predictions],
        [line["expected_output"] for line in predictions],
        [line["predicted_output"] for line in predictions],
        correct,
        records=predictions,
    )
    with plotting():
        title = tr(
            "{model} judges {share} of {reports} of {name} correctly",
            model=model,
            share=percent(figures["accuracy"]),
            reports=counted(figures["n"], "report", "reports"),
            name=name,
        )
        chart = replace(kinds_chart([scored], "subtype"), title=title)
        save(draw_bars(chart), folder / PLOT)
    rows = []
    for line, is_correct in zip(predictions, correct, strict=True):
        row = {
            "subtype": line["subtype"],
            "type": line.get("type", line["expected_output"]),
            "user": line["instruction"],
            "expected": line["expected_output"],
            "predicted": line["predicted_output"],
            "is_correct": is_correct,
            "model_output": line["model_output"],
        }
        rows.append(row)
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
        "results": rows,
    }
    write_json(folder / DETAILED, details)


def _shares(kinds: Mapping[str, Results]) -> dict[str, dict[str, object]]:
    shares = {}
    for kind, share in kinds.items():
        shares[kind] = {
            "accuracy": share["value"],
            "correct": round(share["value"] * share["n"]),
            "total": share["n"],
            "ci95": share["ci95"],
        }
    return shares


if __name__ == "__main__":
    run_command(cli)
