"""python -m eval.text --model models/demo-base --dataset alpaca_rte_eval --rouge --out results/text

Reads how likely the expected answers are to a model (eval_loss, perplexity), generates answers of its own,
and measures them; writes OUT/<model>/<set>/{metrics.json,lengths.png,predictions.jsonl,results.json}.
docs/eval-text.md explains them.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

import click

from tuneyard.core.errors import ContentError, RequestError, counted, need, run
from tuneyard.core.files import write_json
from tuneyard.core.language import lang_option
from tuneyard.core.supervision import SupervisedText, supervise, supervise_text
from tuneyard.eval.backends.likelihood import reading_losses
from tuneyard.eval.backends.scorers import Fields, Scorer
from tuneyard.eval.datasets.dataset import EvalDataset, read_datasets
from tuneyard.eval.metrics.answers import cut_thought
from tuneyard.eval.metrics.text import (
    JIEBA,
    TOKENIZERS,
    generated_figures,
    lengths_of,
    percentiles,
    read_figures,
    tokenizer_name,
)
from tuneyard.eval.read.results import METRICS, Prediction
from tuneyard.eval.scoring.candidates import Opened
from tuneyard.eval.scoring.command import Asked, scoring_command
from tuneyard.eval.scoring.images import with_images
from tuneyard.eval.scoring.options import Finite, ScoringRequest, choice, number, refuse_explicit
from tuneyard.eval.scoring.task import Figure, Job, Task
from tuneyard.eval.show.panels import PLOT, draw_lengths
from tuneyard.eval.statistics.rates import Measured
from tuneyard.eval.statistics.selection import held_out_rows

GENERATING = ("max_new_tokens", "preset", "think")
"""Options that only matter where answers are generated."""
LONGEST = 2048  # tokens for the loss, unless the context is smaller
SHOWN = ("eval_loss", "perplexity", "rouge1", "rouge2", "rougeL", "bleu")  # beside other commands' figures


@scoring_command(
    "tuneyard eval text --model models/demo-base --adapter demo-rte --dataset demo_rte_eval "
    "--limit 4 --no-generate --out results/loss",
    "tuneyard eval text --model models/demo-base --dataset demo_rte_eval --limit 2 "
    "--max-new-tokens 8 --out results/rouge",
    own=[
        number(
            "--max-seq-length",
            "Cut prompt and answer to this many tokens for the loss, as training's cutoff_len does.  "
            f"[{LONGEST}, or the model's context if it is smaller]",
            least=2,
        ),
        click.option(
            "--eval-ratio",
            type=Finite(0, 1, min_open=True, max_open=True),
            metavar="R",
            help="Only the rows that LLaMA-Factory's val_size (or the compile of a FILE) holds out.  [all]",
        ),
        number("--seed", "--eval-ratio: the training's seed.", least=0, default=42),
        click.option(
            "--generate/--no-generate", default=True, help="Whether to generate answers.  [generate]"
        ),
        click.option(
            "--rouge", is_flag=True, help="Compare them with the expected ones: ROUGE-1/2/L and BLEU."
        ),
        choice(
            "--tokenizer",
            TOKENIZERS,
            "--rouge: what Chinese is cut into; jieba (an optional package) cuts it into words.",
        ),
        lang_option,
    ],
    longest=512,
)
def cli(request: ScoringRequest, **given: Any) -> Asked:
    """Measure perplexity on the expected answers, and the answers that a model generates itself.

    A set of plain texts (`text` alone) has its perplexity measured over all of its tokens.
    """
    if request.backend != "hf":
        raise RequestError("eval.text reads the model's probabilities, which a server does not show")
    if given["rouge"] and not given["generate"]:
        raise RequestError("--rouge compares generated answers: leave out --no-generate")
    if not given["rouge"]:
        refuse_explicit(("tokenizer",), "it is for ROUGE and BLEU: add --rouge")
    if given["rouge"] and given["tokenizer"] == JIEBA:
        need(JIEBA)
    if not given["generate"]:
        fix = "nothing is generated: leave it out, or leave out --no-generate"
        refuse_explicit(GENERATING, fix)
    if given["eval_ratio"] is None:
        refuse_explicit(("seed",), "it is the seed of --eval-ratio R: give both")
    sets = read_datasets(request.datasets, request.data, request.cluster, images=not given["generate"])
    ratio = given["eval_ratio"]
    sets = with_images(replace(request, limit=None) if ratio else request, sets)
    if ratio:
        sets = [held_out(dataset, ratio, given["seed"]) for dataset in sets]
    texts = frozenset(dataset.name for dataset in sets if not any(dataset.answers))
    if len(texts) == len(sets):
        fix = "nothing is generated: these are plain texts, of which only the loss is measured; leave it out"
        refuse_explicit((*GENERATING, "rouge"), fix)
    return Text(**given, texts=texts), sets


def held_out(dataset: EvalDataset, ratio: float, seed: int) -> EvalDataset:
    """Return the rows that were kept for the evaluation of a training.

    Of a file that a compile has split these are the rows of that split, of any other those that a training
    with this `val_size` and seed holds out.
    """
    if dataset.unsplit is not None:
        return dataset.take(dataset.unsplit.held_out(ratio, seed))
    return dataset.take(held_out_rows(len(dataset.records), ratio, seed))


@dataclass(frozen=True, slots=True)
class Text(Task):
    """Measuring texts, by own options; the sets `texts` have no answers, read as pretraining does."""

    max_seq_length: int | None
    """None until the model, and so the context, is known."""
    eval_ratio: float | None
    seed: int
    generate: bool
    rouge: bool
    tokenizer: str
    texts: frozenset[str]
    command = "eval.text"

    def fitted(self, opened: Opened) -> "Text":
        """Return the command with its default length: no more than the model's context."""
        if self.max_seq_length is not None:
            return self
        return replace(self, max_seq_length=min(LONGEST, opened.local.context))

    @property
    def longest(self) -> int:
        """How many tokens of a row count for the loss."""
        if self.max_seq_length is None:
            raise ValueError("the length is known once the model is: call `fitted` before")
        return self.max_seq_length

    def settings(self, request: ScoringRequest) -> dict[str, object]:
        """Return the options that change a figure."""
        kept = {name: getattr(self, name) for name in ("max_seq_length", "eval_ratio", "generate")}
        parted = {"seed": self.seed} if self.eval_ratio else {}
        generating = {**Task.settings(self, request), "rouge": self.rouge} if self.generate else {}
        cut = {"tokenizer": self.tokenizer} if self.rouge else {}
        return {**kept, **parted, **generating, **cut}

    def scorer(self, job: Job) -> Scorer:
        """Return one that reads the losses and generates; `RequestError` where the context is too short."""
        if self.longest > job.model.context:
            raise RequestError(
                f"--max-seq-length {self.longest} exceeds the model's context of {job.model.context} "
                f"tokens: --max-seq-length {job.model.context}"
            )
        texts = {row: self._supervised(job, row) for row in range(len(job.rows))}
        if not any(supervised.learned for supervised in texts.values()):
            raise ContentError(f"{job.dataset.path}: no token of its {len(texts)} rows carries loss")
        generating = job.generating() if self.generate and not self._plain(job) else None
        return reading_losses(job.model, texts, generating, job.opened.budget)

    def _supervised(self, job: Job, row: int) -> SupervisedText:
        asked = job.rows[row]
        if self._plain(job):
            return supervise_text(job.model.tokenizer, asked.messages[-1]["content"], self.longest)
        answer = {"role": asked.role, "content": asked.answer}
        shown = job.shown(row)
        found = supervise(job.candidate.prompting.turns([*shown, answer]), self.longest)
        if (vision := job.model.vision) and vision.cut(found.ids, shown):
            raise ContentError(
                f"{job.dataset.path}: row {row}: --max-seq-length {self.longest} cuts into its "
                f"images, at which training would stop: {found.length + 1} leaves them whole"
            )
        return replace(found, images=job.images(row))

    def _plain(self, job: Job) -> bool:
        return job.dataset.name in self.texts

    def prediction(self, job: Job, row: int, fields: Fields) -> Prediction:
        """Return the published script's four fields, the row's number, its loss and lengths in tokens."""
        record, asked = job.dataset.records[row], job.rows[row]
        plain = self._plain(job)
        question = "" if plain else record.get("instruction", asked.messages[-1]["content"])
        reference = asked.messages[-1]["content"] if plain else asked.answer
        said: Fields = {}
        if (output := fields.get("model_output")) is not None:
            answer = cut_thought(output)
            thought = {"model_output": output} if answer != output.strip() else {}
            said = {"prediction": answer, **thought, "prediction_tokens": _count(job, answer)}
        return {
            "instruction": question,
            "input": record.get("input", ""),
            "reference": reference,
            **said,
            "row": row,
            **{name: value for name, value in fields.items() if name != "model_output"},
            **({} if plain else {"prompt_tokens": len(job.candidate.prompting.encode(job.shown(row)))}),
            "reference_tokens": _count(job, reference),
        }

    def again(self, job: Job, kept: Prediction) -> Prediction:  # noqa: ARG002
        """Return the line as it is: loss, answer and lengths do not depend on what can be chosen anew."""
        return {name: value for name, value in kept.items() if name != "cluster"}

    def results(self, job: Job, predictions: list[Prediction]) -> dict[str, object]:
        """Write a plot of lengths and, in the published script's layout, metrics.json; return all of it."""
        said = [p for p in predictions if "prediction" in p]
        written, signature = generated_figures(said, self.rouge, self.tokenizer) if said else ({}, None)
        figures = {**read_figures(predictions), **written}
        known = {name: one for name, one in figures.items() if isinstance(one, Measured)}
        metrics = {name: known[name].value if name in known else one for name, one in figures.items()}
        lengths = lengths_of(predictions)
        draw_lengths(lengths, job.candidate.name, job.dataset.name, self.longest, job.folder / PLOT)
        write_json(job.folder / METRICS, metrics)
        return {
            "scored": "texts" if self._plain(job) else "answers",
            **metrics,
            "n": len(predictions),
            "tokens": sum(p["tokens"] for p in predictions),
            "lengths": {name: percentiles(values) for name, values in lengths.items()},
            "generated": len(said),
            "estimates": {name: asdict(one) for name, one in known.items()},
            **({"tokenizer": tokenizer_name(self.tokenizer)} if signature else {}),
            **({"bleu_signature": signature} if signature else {}),
        }

    def line(self, results: Mapping[str, Any]) -> str:
        """Return the figures with the limits of the loss."""
        low, high = results["estimates"]["eval_loss"]["ci95"]
        parts = [
            f"eval_loss {results['eval_loss']:.4f} [{low:.4f}, {high:.4f}]",
            f"perplexity {results['perplexity']:.4g}",
            f"n {results['n']} {results['scored']} ({counted(results['tokens'], 'token')})",
        ]
        if results["generated"]:
            parts += [f"empty {results['empty_rate']:.1%}", f"distinct-2 {results['distinct-2']:.2f}"]
        if "bleu" in results:
            parts += [f"ROUGE-L {results['rougeL']:.3f}", f"BLEU {results['bleu']:.2f}"]
            parts += [f"(by {results['tokenizer']})"]
        return "  ".join(parts)

    def warnings(self, results: Mapping[str, Any]) -> list[str]:
        """Say what was cut, and what could not be asked."""
        cut, refused = round(results["truncation_rate"] * results["n"]), results["refused"]
        told = {
            f"{cut} of {counted(results['n'], 'row')} cut to --max-seq-length {self.longest} as training "
            "cuts them: their loss is that of what is left": cut,
            f"{counted(refused, 'prompt')} too long for the context with --max-new-tokens "
            f"{results['settings'].get('max_new_tokens')}: no answer was generated": refused,
        }
        return [warning for warning, count in told.items() if count]

    def figures(self, results: Mapping[str, Any]) -> dict[str, Figure]:
        """Return loss, perplexity and nearness to the references, those that were measured."""
        found = results["estimates"]
        return {
            name: Figure(found[name]["value"], found[name]["ci95"], results["n"], share=False)
            for name in SHOWN
            if name in found
        }


def _count(job: Job, text: str) -> int:
    return len(job.model.tokenizer(text, add_special_tokens=False)["input_ids"])


if __name__ == "__main__":
    run(cli)
