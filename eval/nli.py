"""python -m eval.nli --model models/demo-base --adapter rte --dataset alpaca_rte_eval --out results/rte

Asks a base model and any number of adapters, the base loaded once, for yes, no or maybe (or any other
labels), and writes OUT/<model>/<set>/{results.json,predictions.jsonl}. docs/eval-nli.md explains them.
"""

from pathlib import Path
from typing import Any

import click

from core.errors import CLI, run
from eval.measure.answers import PARSERS
from eval.pipeline import Request, score


@click.command(context_settings=CLI)
@click.option("--model", required=True, metavar="DIR|ID", help="Model folder or hub id.")
@click.option(
    "--adapter",
    "adapters",
    multiple=True,
    metavar="NAME[=DIR]",
    help="Score this adapter too; NAME alone means saves/NAME. Repeatable.",
)
@click.option(
    "--dataset", "datasets", multiple=True, metavar="NAME", help="A registered dataset. Repeatable."
)
@click.option(
    "--data",
    multiple=True,
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="A JSON or JSON Lines file. Repeatable.",
)
@click.option("--out", required=True, type=click.Path(path_type=Path), help="Folder of the results.")
@click.option(
    "--mode",
    type=click.Choice(["choice", "generate"]),
    default="choice",
    show_default=True,
    help="Compare the labels' probabilities, or generate an answer and parse it.",
)
@click.option(
    "--parser",
    type=click.Choice(list(PARSERS)),
    default="word",
    show_default=True,
    help="generate: take the answer as a word, or search it as the published script did.",
)
@click.option(
    "--variants",
    type=click.Choice(["all", "none"]),
    default="all",
    show_default=True,
    help="choice: sum yes, Yes and both after a space, or take the bare label alone.",
)
@click.option("--choices", metavar="A,B,…", help="The labels; by default those found in the data.")
@click.option(
    "--count",
    multiple=True,
    metavar="A=B",
    help="Let an answer A count as B: maybe=no for a set without maybe. Repeatable.",
)
@click.option(
    "--check-generate",
    type=click.IntRange(0),
    metavar="N",
    default=0,
    help="choice: also generate for N of the rows and say how often both agree.",
)
@click.option("--think", is_flag=True, help="generate: let a model think before it answers.")
@click.option(
    "--backend",
    type=click.Choice(["hf", "openai"]),
    default="hf",
    show_default=True,
    help="openai: any server of that kind, --mode generate only.",
)
@click.option("--url", metavar="URL", help="openai: the server, e.g. http://localhost:8000/v1.")
@click.option("--template", metavar="NAME", help="Ask with LLaMA-Factory's template, not the saved one.")
@click.option(
    "--apply",
    type=click.Choice(["live", "fold"]),
    default="live",
    show_default=True,
    help="Adapters exact beside the base, or rounded into its weights.",
)
@click.option("--dtype", type=click.Choice(["fp32", "bf16", "fp16"]), help="[fp32 on CPU, bf16 on GPU]")
@click.option("--batch-tokens", type=click.IntRange(1), metavar="N", help="[2048 on CPU, 32768 on GPU]")
@click.option(
    "--max-new-tokens",
    type=click.IntRange(1),
    metavar="N",
    default=64,
    show_default=True,
    help="generate: the longest answer.",
)
@click.option("--limit", type=click.IntRange(1), metavar="N", help="Only the first N rows of each set.")
@click.option("--no-base", is_flag=True, help="Do not score the base itself.")
@click.option("--resume", is_flag=True, help="Go on with the run in OUT; refused if anything changed.")
@click.option("--force", is_flag=True, help="Start the run in OUT anew.")
def cli(**given: Any) -> None:
    """Score yes/no/maybe questions (or any labels) with a base model and adapters on it.

    Each accuracy comes with its n, 95 % interval and the share of the commonest answer.
    """
    score(Request(**given))


if __name__ == "__main__":
    run(cli)
