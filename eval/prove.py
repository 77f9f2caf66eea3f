"""python -m eval.prove --model BASE --adapter NAME --fused DIR --gguf FILE --modelfile FILE --dataset NAME …

Prove that what was trained is what is scored and what is served: the same token ids by every way of
making prompts, the same answers from the unmerged adapter, the fused model and the GGUF. docs/eval-prove.md.
"""

from pathlib import Path
from typing import Any

import click

from core.cli import cli_command, command_line
from core.errors import ContentError, RequestError, run
from core.files import write_json, write_text
from eval.scoring.options import PATH, Finite, ScoringRequest, data_options, dtype, number, same_base

COMPARED = ("template", "fused", "gguf", "modelfile")


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
@click.option("--fused", type=PATH, metavar="DIR", help="The model that adapters fuse made.")
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
    from eval.reports.parity import Tolerance, holds, markdown, to_json
    from eval.scoring.parity import Compared, prove

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


if __name__ == "__main__":
    run(cli)
