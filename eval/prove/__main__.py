"""tuneyard eval prove --model BASE --adapter NAME --fused DIR --gguf FILE --url URL --dataset NAME …

Check that training, scoring and serving agree. Every way of making prompts must give the same token ids.
The unmerged adapter, the fused model and the GGUF must give the same answers. See docs/eval-prove.md.

The first way of making prompts is the reference for the others: LLaMA-Factory's template if it is known,
otherwise the chat template of the scoring. The unmerged adapter's answers are the reference for files and
servers. Every model reads the same ids. A server also gets the messages alone, as its clients send them.
"""

from collections.abc import Sequence
from datetime import date
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from tuneyard.core.cli.main import cli_command, next_step, typed_command, up_to_date
from tuneyard.core.cli.run import run_command
from tuneyard.core.errors import ContentError, RequestError
from tuneyard.core.files import text_sha256, write_json, write_text
from tuneyard.core.language.message import _
from tuneyard.eval.models.connection import TIMEOUT
from tuneyard.eval.runs.results import INPUTS, OUTPUTS, CommandResult, check_files
from tuneyard.eval.scoring.options import (
    ADAPTERS,
    PATH,
    Finite,
    adapter_option,
    data_options,
    dtype,
    number,
    same_base,
    with_options,
)
from tuneyard.eval.scoring.request import ScoringRequest

if TYPE_CHECKING:
    from tuneyard.core.execution.state import State
    from tuneyard.eval.models.served import ServedModel
    from tuneyard.eval.prove.state import ParityRequest


@cli_command(
    "prove",
    "tuneyard adapter fuse demo-rte --base models/demo-base --dtype fp32 --out saves/fused",
    "tuneyard eval prove --model models/demo-base --adapter demo-rte --fused saves/fused "
    "--dataset demo_rte_eval --limit 4 --out results/parity",
)
@click.option("--model", required=True, metavar="DIR|ID", help="The base (or a LoRA folder that names it).")
@adapter_option(help=f"The adapters to compare. Files are compared with the first. {ADAPTERS}")
@same_base
@click.option(
    "--template", metavar="NAME", help="LLaMA-Factory's template of the training. [its training.json]"
)
@click.option("--fused", type=PATH, metavar="DIR", help="The model that `tuneyard adapter fuse` wrote.")
@click.option(
    "--gguf", type=PATH, metavar="FILE", help="The model that `tuneyard adapter export --to gguf` made."
)
@click.option(
    "--modelfile", type=PATH, metavar="FILE", help="What `tuneyard adapter export --to ollama` made."
)
@click.option(
    "--url",
    "urls",
    multiple=True,
    metavar="URL",
    help="A running server, e.g. http://localhost:8000/v1. Repeatable.",
)
@click.option(
    "--served-model",
    metavar="NAME",
    help="The model's name there.  [the adapter's, or its only one]",
)
@click.option(
    "--timeout",
    type=Finite(0, min_open=True),
    default=TIMEOUT,
    show_default=True,
    metavar="SECONDS",
    help="The longest wait for an answer of a server.",
)
@partial(with_options, data_options)
@number("--limit", default=100, show_default=True, help="The first N examples of each dataset.")
@number("--max-new-tokens", default=16, show_default=True, help="The longest answer that is generated.")
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
def cli(
    out: Path,
    flips: int,
    tolerance: float,
    template: str | None,
    urls: tuple[str, ...],
    served_model: str | None,
    timeout: float,
    **options: Any,
) -> None:
    """Compare prompts and answers from training to serving; exit 1 where they differ.

    Prompts must have the same token ids. Answers may differ by --flips and --tolerance.
    """
    from tuneyard.core.weights.adapter_files import refuse_adapter
    from tuneyard.eval.models.open_server import check_url
    from tuneyard.eval.prove.proof import FILES, ParityInputs, Tolerance
    from tuneyard.eval.prove.state import ParityRequest

    files = {name: options.pop(name) for name in FILES}
    if not (template or urls or any(files.values())):
        choices = ", ".join(f"--{name}" for name in ("template", *FILES, "url"))
        raise RequestError(_("nothing to compare with: name {names}", names=choices))
    if served_model and not urls:
        raise RequestError(_("--served-model: no server to ask; add its --url"))
    if files["fused"]:
        refuse_adapter(files["fused"])  # before a model is loaded
        if files["fused"].resolve() == Path(options["model"]).resolve():
            raise RequestError(
                _("--fused is --model itself: name the folder that tuneyard adapter fuse wrote")
            )
    addresses = list(dict.fromkeys(check_url(url) for url in urls))
    inputs = ParityInputs(template, **files, urls=addresses, served_model=served_model, timeout=timeout)
    scoring = ScoringRequest(out=out, day=date.today(), command_line=typed_command("eval.prove"), **options)
    outcome = check_parity(ParityRequest(scoring, inputs, Tolerance(flips, tolerance)))
    if outcome.is_current:
        up_to_date(outcome.place, outcome.next_command)
    else:
        next_step(outcome.place, outcome.next_command)


def state(request: "ParityRequest") -> "State":
    """How far the check of a request is. No model is loaded, and nothing is written."""
    from tuneyard.eval.prove.state import parity_inputs, parity_state

    return parity_state(request, parity_inputs(request))


def check_parity(request: "ParityRequest") -> CommandResult:
    """Check parity, print the page and write it. `ContentError` if anything differs by more than allowed."""
    from tuneyard.core.execution.state import CURRENT
    from tuneyard.eval.prove.check import prove
    from tuneyard.eval.prove.page import markdown, to_json
    from tuneyard.eval.prove.state import PAGE, RECORD, parity_inputs, parity_state

    scoring, out = request.scoring, request.scoring.out
    check_files(out, (RECORD, PAGE), "causes")
    recorded = parity_inputs(request)
    if parity_state(request, recorded) == CURRENT:
        return CommandResult(out / PAGE, _next_command(request, ()), is_current=True)
    proof = prove(scoring, request.inputs, request.tolerance)
    page = markdown(proof)
    record = {
        **to_json(proof, scoring.command_line.text()),
        INPUTS: recorded,
        OUTPUTS: {PAGE: text_sha256(page)},
    }
    write_json(out / RECORD, record)  # by which the next command knows the page of a killed one
    write_text(out / PAGE, page)
    click.echo(page, nl=False)
    if proof.failures():
        raise ContentError(_("not equal, see {path}", path=out / PAGE))
    offers: Sequence[ServedModel] = ()
    if len(proof.servers) == 1:
        (offers,) = proof.servers
    return CommandResult(out / PAGE, _next_command(request, offers))


def _next_command(request: "ParityRequest", offers: Sequence["ServedModel"]) -> list[str]:
    """Make an Ollama model, or talk to what was checked."""
    if request.inputs.modelfile:
        return ["ollama", "create", request.scoring.out.name, "-f", str(request.inputs.modelfile)]
    if len(request.inputs.urls) == 1:
        return ["tuneyard", "eval", "chat", *_chat_server(request, offers)]
    return ["tuneyard", "eval", "chat", *request.scoring.chat_options()]


def _chat_server(request: "ParityRequest", offers: Sequence["ServedModel"]) -> list[str]:
    """Options of a chat with the server's adapter: the first one of --adapter."""
    adapters, inputs = request.scoring.adapters, request.inputs
    words = ["--url", inputs.urls[0]]
    if inputs.served_model:
        return [*words, "--served-model", inputs.served_model]
    if not adapters:
        return words
    from tuneyard.adapters.model.weighted import parse_named

    name, _path = parse_named(adapters[0])
    for offer in offers:
        if offer.is_adapter and name in offer.names:
            return [*words, "--served-model", offer.name]
    return words


if __name__ == "__main__":
    run_command(cli)
