"""tuneyard eval text --model models/demo-base --dataset alpaca_rte_eval --rouge --out results/text

Measures how likely the expected answers are to a model (eval_loss, perplexity). Also generates answers and
compares them with the expected ones. Writes
OUT/<model>/<dataset>/{metrics.json,predictions.jsonl,results.json}. docs/eval-text.md explains them.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, cast

import click

from tuneyard.core.cli.run import run_command
from tuneyard.core.datasets.trained_examples import held_out_rows
from tuneyard.core.errors import ContentError, RequestError
from tuneyard.core.files import write_json
from tuneyard.core.language.message import _, counted, joined, ngettext
from tuneyard.core.llamafactory.prompt.supervision import SupervisedText, supervise, supervise_text
from tuneyard.core.records.prediction_record import Prediction, PredictionFields
from tuneyard.eval.data.dataset import EvalDataset
from tuneyard.eval.figures.answers import cut_thought
from tuneyard.eval.figures.text import (
    CHARACTERS,
    TOKENIZERS,
    generated_figures,
    import_overlaps,
    lengths_of,
    percentiles,
    read_figures,
    tokenizer_name,
)
from tuneyard.eval.models import Backend
from tuneyard.eval.models.batch_plan import BatchPlan, Fields
from tuneyard.eval.runs.results import METRICS, PREDICTIONS, Results
from tuneyard.eval.scoring.command import Declared, scoring_command
from tuneyard.eval.scoring.evaluation import (
    NO_TEXT,
    Evaluation,
    Job,
    answer_without,
)
from tuneyard.eval.scoring.options import Finite, RescorableOption, number
from tuneyard.eval.scoring.request import ScoringRequest
from tuneyard.eval.statistics.rates import Mean

BY_TOKEN = ("ids", "token_losses")
"""Fields of an answer that go to token_losses.jsonl."""
GENERATING = ("max_new_tokens", "preset", "think")
"""Options that only matter if answers are generated."""
SEED = 42
LONGEST = 2048  # tokens for the loss, unless the context is smaller


@scoring_command(
    "text",
    "tuneyard eval text --model models/demo-base --adapter demo-rte --dataset demo_rte_eval "
    "--limit 4 --no-generate --out results/loss",
    "tuneyard eval text --model models/demo-base --dataset demo_rte_eval --limit 2 "
    "--max-new-tokens 8 --out results/rouge",
    options=[
        number(
            "--max-seq-length",
            type=click.IntRange(2),
            help="Cut prompt and answer to this many tokens for the loss, as training's cutoff_len does.  "
            f"[{LONGEST}, or the model's context if it is smaller]",
        ),
        click.option(
            "--eval-ratio",
            type=Finite(0, 1, min_open=True, max_open=True),
            metavar="R",
            help="Only the rows that LLaMA-Factory's val_size (or the compile of a FILE) holds out.  [all]",
        ),
        number(
            "--seed",
            type=click.IntRange(0),
            help="--eval-ratio: the training's seed.  [42] --preset: draw other answers.",
        ),
        click.option(
            "--generate/--no-generate", default=True, help="Whether to generate answers.  [generate]"
        ),
        click.option(
            "--rouge",
            cls=RescorableOption,
            is_flag=True,
            help="Compare generated and expected answers: ROUGE-1/2/L and BLEU.",
        ),
        click.option(
            "--tokenizer",
            cls=RescorableOption,
            type=click.Choice(TOKENIZERS),
            default=TOKENIZERS[0],
            show_default=True,
            help="--rouge: how Chinese is split; jieba (an optional package) splits it into words.",
        ),
        click.option(
            "--token-losses",
            is_flag=True,
            help="Also write the loss of each token, to token_losses.jsonl.",
        ),
    ],
    images=lambda options: not options["generate"],
    without=("--seed",),
    longest=512,
)
def cli(request: ScoringRequest, datasets: Sequence[EvalDataset], **options: Any) -> Declared:
    """Measure perplexity on the expected answers, and the quality of generated answers.

    For plain texts (records with `text` alone) perplexity is over all tokens.
    """
    request.need_probabilities()
    if options["rouge"] and not options["generate"]:
        raise RequestError(_("--rouge compares generated answers: leave out --no-generate"))
    if not options["rouge"]:
        request.refuse_explicit(("tokenizer",), _("it is for ROUGE and BLEU: add --rouge"))
    if options["rouge"]:
        import_overlaps(options["tokenizer"])
    if not options["generate"]:
        reason = _("nothing is generated: leave it out, or leave out --no-generate")
        request.refuse_explicit(GENERATING, reason)
    if request.rescore:
        options["token_losses"] = False  # the losses stay with the run that is scored again
    options["seed"] = SEED if request.seed is None else request.seed
    if options["eval_ratio"] is not None:
        datasets = [held_out(dataset, options["eval_ratio"], options["seed"]) for dataset in datasets]
    elif not request.preset:
        request.refuse_explicit(("seed",), _("it is the seed of --eval-ratio R: give both"))
    texts = frozenset(dataset.name for dataset in datasets if not any(dataset.answers))
    if len(texts) == len(datasets):
        reason = _(
            "nothing is generated: these are plain texts, of which only the loss is measured; leave it out"
        )
        request.refuse_explicit((*GENERATING, "rouge"), reason)
    return Text(**options, texts=texts), datasets


def held_out(dataset: EvalDataset, ratio: float, seed: int) -> EvalDataset:
    """Keep only the rows that a training holds out for its evaluation.

    If a compile has split the file, these are the rows of that split. Otherwise a training with this
    `val_size` and seed holds them out.
    """
    unsplit = dataset.origin.unsplit
    if unsplit is not None:
        split = dataset.take(unsplit.held_out(ratio, seed))
        return replace(split, origin=replace(split.origin, held_out=()))
    drawn = dataset.take(held_out_rows(len(dataset.records), ratio, seed))
    return replace(drawn, origin=replace(drawn.origin, drawn=True))


@dataclass(frozen=True, slots=True)
class Text(Evaluation):
    """Measuring texts. The datasets `texts` have no answers and are read as in pretraining."""

    tests = _("loss of the expected answers")
    max_seq_length: int | None
    eval_ratio: float | None
    seed: int
    generate: bool
    rouge: bool
    tokenizer: str
    texts: frozenset[str]
    token_losses: bool

    def longest(self, backend: Backend) -> int:
        """Number of a row's tokens that are read for the loss. By default no more than the context."""
        return self.max_seq_length or min(LONGEST, backend.context)

    def settings(self, request: ScoringRequest, backend: Backend) -> dict[str, object]:
        """Options that change a figure."""
        settings: dict[str, object] = {"max_seq_length": self.longest(backend)}
        for name in ("eval_ratio", "generate", "token_losses"):
            settings[name] = getattr(self, name)
        if self.eval_ratio:
            settings["seed"] = self.seed
        if self.generate:
            settings.update(Evaluation.settings(self, request, backend))
            settings["rouge"] = self.rouge
        if self.rouge:
            settings["tokenizer"] = self.tokenizer
        return settings

    def batch_plan(self, job: Job) -> BatchPlan:
        """Read the losses and generate; `RequestError` if the context is too short."""
        longest, context = self.longest(job.backend), job.backend.context
        if longest > context:
            raise RequestError(
                _(
                    "--max-seq-length {longest} exceeds the model's context of {context} tokens: "
                    "--max-seq-length {context}",
                    longest=longest,
                    context=context,
                )
            )
        generating = None
        if self.generate and not self._plain(job):
            generating = job.generating()
        return job.backend.losses(lambda: self._texts(job), generating)

    def _texts(self, job: Job) -> dict[int, SupervisedText]:
        """Every row's tokens. `ContentError` if none of them carries loss."""
        texts = {row: self._supervised(job, row) for row in range(len(job.rows))}
        if not any(supervised.learned for supervised in texts.values()):
            raise ContentError(
                _(
                    "{path}: no token of its {number} rows carries loss",
                    path=job.dataset.path,
                    number=len(texts),
                )
            )
        return texts

    def _supervised(self, job: Job, row: int) -> SupervisedText:
        example, longest = job.rows[row], self.longest(job.backend)
        if self._plain(job):
            return supervise_text(job.backend.tokenizer, example.question, longest)
        answer = {"role": example.role, "content": example.answer}
        messages = job.with_image_tokens(row)
        supervised = supervise(job.candidate.prompting.turns([*messages, answer]), longest)
        vision = job.backend.vision
        if vision and vision.cut(supervised.ids, messages):
            raise ContentError(
                _(
                    "{path}: row {row}: --max-seq-length {length} cuts into its images, at which "
                    "training would stop: {fix} leaves them whole",
                    path=job.dataset.path,
                    row=row,
                    length=longest,
                    fix=supervised.length + 1,
                )
            )
        return supervised._replace(images=job.images(row))

    def _plain(self, job: Job) -> bool:
        return job.dataset.name in self.texts

    def prediction(self, job: Job, row: int, fields: Fields) -> Prediction:
        """The published script's four fields, the row's number, its loss and lengths in tokens."""
        if "reference" in fields:  # a kept line: its loss, answer and lengths do not depend on --rescore
            return cast(Prediction, fields)
        record, example = job.dataset.records[row], job.rows[row]
        prompt = example.question
        instruction = ""
        reference = prompt
        if not self._plain(job):
            instruction = record.get("instruction", prompt)
            reference = example.answer
        generated: PredictionFields = {}
        output = fields.get("model_output")
        if output is not None:
            answer = cut_thought(output)
            generated["prediction"] = answer
            if answer != output.strip():
                generated["model_output"] = output
            generated["prediction_tokens"] = _count(job, answer)
        line: Prediction = {
            "instruction": instruction,
            "input": record.get("input", ""),
            "reference": reference,
            **generated,
            "row": row,
            **answer_without(fields, ("model_output", *BY_TOKEN)),
        }
        if not self._plain(job):
            line["prompt_tokens"] = len(job.candidate.prompting.encode(job.with_image_tokens(row)))
        line["reference_tokens"] = _count(job, reference)
        return line

    def results(self, job: Job, predictions: list[Prediction]) -> dict[str, object]:
        """Compute all figures, and write metrics.json in the published script's layout."""
        generated = [line for line in predictions if "prediction" in line]
        figures = read_figures(predictions)
        signature = None
        if generated:
            of_answers, signature = generated_figures(generated, self.rouge, self.tokenizer)
            figures.update(of_answers)
        metrics: dict[str, float | None] = {}
        estimates = {}
        for name, figure in figures.items():
            if isinstance(figure, Mean):
                metrics[name] = figure.value
                estimates[name] = figure.as_json()
            else:
                metrics[name] = figure
        lengths = lengths_of(predictions)
        write_json(job.folder / METRICS, metrics)
        results: dict[str, object] = {
            "scored": "texts" if self._plain(job) else "answers",
            **metrics,
            "n": len(predictions),
            "tokens": sum(line["tokens"] or 0 for line in predictions),
            "lengths": {name: percentiles(values) for name, values in lengths.items()},
            "generated": len(generated),
            "estimates": estimates,
        }
        if signature:
            results["tokenizer"] = tokenizer_name(self.tokenizer)
            results["bleu_signature"] = signature
        return results

    def line(self, results: Results) -> str:
        """The figures, with the limits of the loss."""
        limits = results["estimates"]["eval_loss"]["ci95"]
        interval: str = _("too few rows for an interval")
        if limits:
            interval = ", ".join(f"{limit:.4f}" for limit in limits)
        rows = counted(results["n"], "answer", "answers")
        if results["scored"] == "texts":
            rows = ngettext("{number:,} text", "{number:,} texts", results["n"], number=results["n"])
        tokens = counted(results["tokens"], "token", "tokens")
        parts: list[str] = [
            _("eval_loss {loss:.4f} [{interval}]", loss=results["eval_loss"], interval=interval),
            _("perplexity {perplexity:.4g}", perplexity=results["perplexity"]),
            _("n {rows} ({tokens})", rows=rows, tokens=tokens),
        ]
        if results["generated"]:
            parts.append(_("empty {share:.1%}", share=results["empty_rate"]))
            parts.append(f"distinct-2 {results['distinct-2']:.2f}")
        if "bleu" in results:
            parts += [f"ROUGE-L {results['rougeL']:.3f}", f"BLEU {results['bleu']:.2f}"]
            tokenizer = _("(by characters)")
            if self.tokenizer != CHARACTERS:
                tokenizer = _("(by {tokenizer})", tokenizer=results["tokenizer"])
            parts.append(tokenizer)
        return joined(parts, "  ")

    def warnings(self, results: Results) -> list[str]:
        """Warn of rows that were cut, and of prompts that exceed the context."""
        warnings: list[str] = []
        if results["generated"] and results["empty_rate"] == 1:
            warnings.append(NO_TEXT)
        elif results["generated"] and results.get("rouge1") == 0:
            warnings.append(
                _(
                    "no answer has a word of its reference; read some of them in {file}, since the "
                    "template or the end tokens may be wrong",
                    file=PREDICTIONS,
                )
            )
        cut, too_long = round(results["truncation_rate"] * results["n"]), results["too_long"]
        if cut:
            rows, longest = counted(results["n"], "row", "rows"), results["settings"]["max_seq_length"]
            warnings.append(
                _(
                    "{cut:,} of {rows} cut to --max-seq-length {longest} as training cuts them: their loss "
                    "is that of the remaining tokens; a larger one reads more of them",
                    cut=cut,
                    rows=rows,
                    longest=longest,
                )
            )
        if too_long:
            warnings.append(
                _(
                    "{prompts} too long for the context with --max-new-tokens {tokens}: no answer was "
                    "generated",
                    prompts=counted(too_long, "prompt", "prompts"),
                    tokens=results["settings"].get("max_new_tokens"),
                )
            )
        return warnings


def _count(job: Job, text: str) -> int:
    return len(job.backend.tokenizer(text, add_special_tokens=False)["input_ids"])


if __name__ == "__main__":
    run_command(cli)
