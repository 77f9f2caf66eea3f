"""python -m eval.prove --model BASE --adapter NAME --fused DIR --gguf FILE --modelfile FILE --dataset NAME …

Prove that what was trained is what is scored and what is served: the same token ids by every way of
making prompts, the same answers from the unmerged adapter, the fused model and the GGUF. docs/eval-prove.md.
"""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import click

from tuneyard.core.cli import cli_command, command_line
from tuneyard.core.errors import ContentError, RequestError, counted, run, show_value
from tuneyard.core.files import write_json, write_text
from tuneyard.eval.reports.numbers import Table, grid
from tuneyard.eval.scoring.options import PATH, Finite, ScoringRequest, data_options, dtype, number, same_base
from tuneyard.eval.scoring.parity import AnswerProof, Compared, FirstDifference, Proof, prove

COMPARED = ("template", "fused", "gguf", "modelfile")
PROMPTS = ("prompts made by", "dataset", "examples", "different ids", "first")
ANSWERS = ("answers of", *PROMPTS[1:3], "flips", "largest difference, nats", "different texts", "first")


@dataclass(frozen=True, slots=True)
class Tolerance:
    """What may differ: answers that flip, and a label's log-probability in nats. Prompts may not."""

    flips: int
    nats: float

    def allows(self, answer: AnswerProof) -> bool:
        """Whether a model's answers differ by no more than that."""
        return len(answer.flips) <= self.flips and (answer.largest or 0.0) <= self.nats


@cli_command(
    "prove",
    "tuneyard adapter fuse demo-rte --base models/demo-base --dtype fp32 --out saves/fused",
    "tuneyard eval prove --model models/demo-base --adapter demo-rte --fused saves/fused "
    "--dataset demo_rte_eval --limit 4 --out results/parity",
)
@click.option("--model", required=True, metavar="DIR|ID", help="The base (or a LoRA folder that names it).")
@click.option("--adapter", metavar="NAME[=DIR]", help="The adapter; NAME alone means saves/NAME.")
@same_base
@click.option("--template", metavar="NAME", help="LLaMA-Factory's template of the training. [its run.json]")
@click.option("--fused", type=PATH, metavar="DIR", help="The model that `tuneyard adapter fuse` wrote.")
@click.option("--gguf", type=PATH, metavar="FILE", help="The model that adapters export --to gguf made.")
@click.option("--modelfile", type=PATH, metavar="FILE", help="What adapters export --to ollama made.")
@data_options
@number("--limit", "The first N examples of each dataset.", default=100)
@number("--max-new-tokens", "The longest answer that is generated.", default=16)
@dtype
@click.option(
    "--flips",
    type=click.IntRange(0),
    default=0,
    show_default=True,
    metavar="N",
    help="Answers that may differ, for each model and dataset.",
)
@click.option(
    "--tolerance",
    type=Finite(0),
    default=0.1,
    show_default=True,
    metavar="NATS",
    help="By how much a label's log-probability may differ.",
)
@click.option("--out", required=True, type=PATH, metavar="DIR", help="Folder for prove.md and prove.json.")
def cli(out: Path, adapter: str | None, flips: int, tolerance: float, **given: Any) -> None:
    """Compare prompts and answers from training to serving; exit 1 where they differ.

    Prompts must have the same token ids. Answers may differ by --flips and --tolerance.
    """
    if out.exists() and not out.is_dir():
        raise RequestError(f"--out {out}: a file; expected a folder")
    compared = {name: given.pop(name) for name in COMPARED}
    if not any(compared.values()):
        raise RequestError(f"nothing to compare with: name {', '.join(f'--{name}' for name in COMPARED)}")
    adapters = (adapter,) if adapter else ()
    request = ScoringRequest(out=out, adapters=adapters, no_base=True, **given)
    allowed = Tolerance(flips, tolerance)
    proof = prove(request, Compared(**compared))
    page = markdown(proof, allowed)
    write_text(out / "prove.md", page)
    write_json(out / "prove.json", to_json(proof, allowed, command_line("eval.prove")))
    click.echo(page, nl=False)
    if not holds(proof, allowed):
        raise ContentError(f"not equal, see {out / 'prove.md'}")


def holds(proof: Proof, tolerance: Tolerance) -> bool:
    """Return whether all prompts are equal and all answers within the tolerance."""
    return not _beyond(proof, tolerance)


def verdict(proof: Proof, tolerance: Tolerance) -> str:
    """Return in a sentence what is proved, or everything that is not."""
    if wrong := _beyond(proof, tolerance):
        return f"Not equal: {'; '.join(wrong)}."
    ways = counted(1 + len({one.way for one in proof.prompts}), "way")
    rows = sum({one.dataset: one.n for one in proof.prompts}.values())
    same = f"Equal on {rows:,} examples: {ways} of making prompts give the same token ids"
    if not proof.answers:
        return f"{same}."
    models = counted(len({one.model for one in proof.answers}), "served model")
    flips = counted(sum(len(one.flips) for one in proof.answers), "flip")
    largest = max((one.largest for one in proof.answers if one.largest is not None), default=None)
    by = "" if largest is None else f", labels' log-probabilities within {largest:.2g} nats"
    return f"{same}, and the answers of {models} are the unmerged adapter's ({flips}{by})."


def _beyond(proof: Proof, tolerance: Tolerance) -> list[str]:
    """What differs by more than the tolerance allows."""
    wrong = [
        f"{one.way} gives other token ids in {one.differing} of {one.n} rows of {one.dataset}"
        for one in proof.prompts
        if not one.equal
    ]
    for one in proof.answers:
        if not tolerance.allows(one):
            nats = one.largest
            by = "" if nats is None else f", a label's log-probability differs by {nats:.2g} nats"
            wrong.append(f"{one.model} flips {len(one.flips)} of {one.n} answers of {one.dataset}{by}")
    return wrong


def markdown(proof: Proof, tolerance: Tolerance) -> str:
    """Return the page: the verdict, prompts, answers, what was not checked, and what is allowed."""
    prompts = [
        [one.way, one.dataset, f"{one.n:,}", f"{one.differing:,}", _first(one.first)] for one in proof.prompts
    ]
    parts = [
        "# Parity of training, scoring and serving",
        verdict(proof, tolerance),
        f"Reference of the prompts: {proof.reference}. Reference of the answers: the unmerged adapter. "
        f"Allowed: {counted(tolerance.flips, 'flip')}, {tolerance.nats:g} nats.",
        grid(Table(PROMPTS, prompts)),
    ]
    if proof.answers:
        parts.append(grid(Table(ANSWERS, [_answer(one) for one in proof.answers])))
    if proof.unchecked:
        parts.append("\n".join(f"- not checked: {what}" for what in proof.unchecked))
    return "\n\n".join(parts) + "\n"


def _answer(one: AnswerProof) -> list[str]:
    few = ", ".join(map(str, one.flips[:5])) + ("…" if len(one.flips) > 5 else "")
    flips = f"{len(one.flips)}" + (f" (row {few})" if one.flips else "")
    largest = "–" if one.largest is None else f"{one.largest:.2g} (row {one.largest_row})"
    first = _first(one.first)
    return [one.model, one.dataset, f"{one.n:,}", flips, largest, f"{one.differing:,}", first]


def _first(first: FirstDifference | None) -> str:
    if first is None:
        return ""
    sides = ((first.expected, first.expected_text), (first.found, first.found_text))
    was, now = ("the end" if token is None else f"{token} {show_value(text)}" for token, text in sides)
    return f"row {first.row}, token {first.place}: {was} became {now}"


def to_json(proof: Proof, tolerance: Tolerance, command: str) -> dict[str, object]:
    """Return the proof as plain JSON values."""
    return {
        "proved": holds(proof, tolerance),
        "verdict": verdict(proof, tolerance),
        "tolerance": asdict(tolerance),
        "reference": proof.reference,
        "prompts": [{**asdict(one), "equal": one.equal} for one in proof.prompts],
        "answers": [{**asdict(one), "within": tolerance.allows(one)} for one in proof.answers],
        "not_checked": list(proof.unchecked),
        **proof.facts,
        "command": command,
    }


if __name__ == "__main__":
    run(cli)
