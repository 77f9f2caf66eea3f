"""tuneyard eval prove --model BASE --adapter NAME --fused DIR --gguf FILE --modelfile FILE --dataset NAME …

Check that training, scoring and serving agree. Every way of making prompts must give the same token ids.
The unmerged adapter, the fused model and the GGUF must give the same answers. See docs/eval-prove.md.

The first way of making prompts is the reference for the others: LLaMA-Factory's template if it is known,
otherwise the chat template of the scoring. The unmerged adapter's answers are the reference for the served
models. Every model reads the same ids.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import zip_longest
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from tuneyard.core import version
from tuneyard.core.cli import cli_command, command_line
from tuneyard.core.errors import ContentError, RequestError, counted, run_command, show_value
from tuneyard.core.files import sha256, versions, write_json, write_text
from tuneyard.core.next_step import next_step, same_options
from tuneyard.core.number_format import Table, grid
from tuneyard.core.prompt import Encode, Message, chat_encoder, llamafactory_encoder, saved_chat_template
from tuneyard.eval.backends.load import check_gguf, find_model, load_gguf, load_gguf_tokenizer, load_model
from tuneyard.eval.backends.modelfile import ServedModelfile, read_modelfile
from tuneyard.eval.backends.scorers import choosing, prompts_too_long, score_all
from tuneyard.eval.datasets.dataset import INDEPENDENT, EvalDataset, read_datasets
from tuneyard.eval.datasets.prompts import trained_template
from tuneyard.eval.metrics.labels import MOST, spellings
from tuneyard.eval.scoring.candidates import Candidate, Opened, open_models
from tuneyard.eval.scoring.options import PATH, Finite, ScoringRequest, data_options, dtype, number, same_base
from tuneyard.eval.scoring.task import Job

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

INPUTS = ("template", "fused", "gguf", "modelfile")
PROMPTS = ("prompts made by", "dataset", "examples", "different ids", "first")
ANSWERS = ("answers of", *PROMPTS[1:3], "flips", "largest difference, nats", "different texts", "first")

SERVED = ("fused", "gguf", "modelfile")
PACKAGES = ("torch", "transformers", "tokenizers", "llamafactory", "gguf")
SHOWN = 8  # tokens of which the text is given
Ids = Sequence[int]
Decode = Callable[[Ids], str]


@dataclass(frozen=True, slots=True)
class FirstDifference:
    """The first token in which two sequences of a row differ: its place, both ids (None past the end), and
    the texts of this token and the seven after it."""

    row: int
    place: int
    expected: int | None
    actual: int | None
    expected_text: str
    actual_text: str


@dataclass(frozen=True, slots=True)
class PromptProof:
    """One way of making prompts, compared with the reference on the rows of a dataset."""

    way: str
    dataset: str
    n: int
    differing: int
    first: FirstDifference | None

    @property
    def equal(self) -> bool:
        """True if every row has the same token ids."""
        return self.differing == 0


@dataclass(frozen=True, slots=True)
class Answers:
    """A model's answers by row: the generated tokens, and each label's log-probability in nats.

    `labels` is None if the dataset has no set of labels.
    """

    tokens: Mapping[int, Ids]
    labels: Mapping[int, Mapping[str, float]] | None


@dataclass(frozen=True, slots=True)
class AnswerProof:
    """One model's answers, compared with the unmerged adapter's on the rows of a dataset.

    `flips` lists the rows whose likeliest label differs. Without labels it lists the rows whose generated
    tokens differ. `largest` is the largest difference of a label's log-probability in nats, and `largest_row`
    is its row. Both are None without labels. `differing` counts the rows whose generated tokens differ.
    `first` describes the first of them.
    """

    model: str
    dataset: str
    n: int
    flips: Sequence[int]
    largest: float | None
    largest_row: int | None
    differing: int
    first: FirstDifference | None


@dataclass(frozen=True, slots=True)
class Proof:
    """Result of a parity check.

    `prompts` are compared with those of the way `reference`, `answers` with the unmerged adapter's.
    `unchecked` lists the comparisons that were not made, with the reason. `facts` are the settings, hashes
    and versions.
    """

    reference: str
    prompts: Sequence[PromptProof]
    answers: Sequence[AnswerProof]
    unchecked: Sequence[str]
    facts: Mapping[str, object]


@dataclass(frozen=True, slots=True)
class ParityInputs:
    """Inputs to compare the adapter with: the training template, and the served files."""

    template: str | None
    fused: Path | None
    gguf: Path | None
    modelfile: Path | None


@dataclass(frozen=True, slots=True)
class Tolerance:
    """Allowed differences: flipped answers, and nats of a label's log-probability. Prompts may not differ."""

    flips: int
    nats: float

    def allows(self, answer: AnswerProof) -> bool:
        """True if a model's answers are within the tolerance."""
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
def cli(out: Path, adapter: str | None, flips: int, tolerance: float, **options: Any) -> None:
    """Compare prompts and answers from training to serving; exit 1 where they differ.

    Prompts must have the same token ids. Answers may differ by --flips and --tolerance.
    """
    if out.exists() and not out.is_dir():
        raise RequestError(f"--out {out}: a file; expected a folder")
    inputs = {name: options.pop(name) for name in INPUTS}
    if not any(inputs.values()):
        choices = ", ".join(f"--{name}" for name in INPUTS)
        raise RequestError(f"nothing to compare with: name {choices}")
    adapters = (adapter,) if adapter else ()
    request = ScoringRequest(out=out, adapters=adapters, no_base=True, **options)
    allowed = Tolerance(flips, tolerance)
    proof = prove(request, ParityInputs(**inputs))
    page = markdown(proof, allowed)
    write_text(out / "prove.md", page)
    write_json(out / "prove.json", to_json(proof, allowed, command_line("eval.prove")))
    click.echo(page, nl=False)
    if not holds(proof, allowed):
        raise ContentError(f"not equal, see {out / 'prove.md'}")
    if inputs["modelfile"]:
        command = ["ollama", "create", out.name, "-f", inputs["modelfile"]]
    else:
        command = ["tuneyard", "eval", "chat", *same_options("--model", "--adapter")]
    next_step(out / "prove.md", command)


def prove(request: ScoringRequest, inputs: ParityInputs) -> Proof:
    """Compare prompts and answers on the first rows of every dataset. Errors are those of its inputs."""
    datasets = read_datasets(request.datasets, request.data, INDEPENDENT)
    served = None
    if inputs.modelfile:
        served = read_modelfile(inputs.modelfile)
    if inputs.gguf:
        check_gguf(inputs.gguf)
    opened = open_models(request)
    if len(opened.candidates) != 1:
        raise RequestError(f"{request.model} is an adapter itself: leave --adapter out")
    (candidate,) = opened.candidates
    template = inputs.template
    if not template:
        trained_templates = {trained_template(part.adapter.folder) for part in candidate.parts}
        if len(trained_templates) == 1:
            template = trained_templates.pop()
    tokenizer = opened.local.tokenizer
    encoders = dict(_ways(replace(inputs, template=template), candidate, tokenizer, served))
    reference, scored = next(iter(encoders)), candidate.prompting.source
    unchecked = [f"no --{option}" for option in SERVED if getattr(inputs, option) is None]
    if template is None:
        unchecked.insert(0, "training's template: no recipe beside the adapter names one (--template NAME)")
    jobs = [Job(request, opened, candidate, dataset) for dataset in datasets]
    prompts: list[PromptProof] = []
    fitting_rows: dict[str, list[int]] = {}
    for job in jobs:
        name = job.dataset.name
        conversations = [example.messages for example in job.rows]
        ids_by_way: dict[str, dict[int, Ids]] = {}
        for way, encode in encoders.items():
            ids_by_way[way] = dict(enumerate(map(encode, conversations)))
        for way, ids in ids_by_way.items():
            if way != reference:
                prompts.append(prove_prompts(way, name, ids_by_way[reference], ids, tokenizer.decode))
        scored_ids = ids_by_way[scored]
        too_long = prompts_too_long(scored_ids, request.max_new_tokens, opened.local.context)
        fitting_rows[name] = [row for row in scored_ids if row not in too_long]
        if too_long:
            unchecked.append(
                f"answers to {counted(len(too_long), 'row')} of {name}: too long for the context"
            )
    answers = list(_answers(jobs, inputs, fitting_rows))
    return Proof(reference, prompts, answers, unchecked, _facts(request, inputs, opened, datasets))


def _ways(
    inputs: ParityInputs,
    candidate: Candidate,
    tokenizer: "PreTrainedTokenizerBase",
    served: ServedModelfile | None,
) -> Iterator[tuple[str, Encode]]:
    """List every way of making prompts from training to serving, training's first."""
    if inputs.template is not None:  # "": the recipe names none
        way = f"LLaMA-Factory template {inputs.template}"
        if not inputs.template:
            way = "LLaMA-Factory's reading of the base's chat template (the recipe names no template)"
        yield way, llamafactory_encoder(tokenizer, inputs.template)
    yield candidate.prompting.source, candidate.prompting.encode
    if inputs.fused:
        from transformers import AutoTokenizer

        folder = find_model(str(inputs.fused))
        fused_tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
        encode = chat_encoder(fused_tokenizer, saved_chat_template(inputs.fused))
        yield f"chat template and tokenizer of {inputs.fused}", encode
    if inputs.gguf:
        gguf_tokenizer = load_gguf_tokenizer(inputs.gguf)
        template = gguf_tokenizer.chat_template
        if not isinstance(template, str):
            template = None
        yield f"chat template and tokenizer in {inputs.gguf}", chat_encoder(gguf_tokenizer, template)
    if served:

        def as_ollama(messages: list[Message]) -> list[int]:
            """Encode Ollama's prompt; the tokenizer may add its beginning-of-text token."""
            return list(tokenizer(served.render(messages))["input_ids"])

        yield f"TEMPLATE of {inputs.modelfile}", as_ollama


def _answers(
    jobs: Sequence[Job], inputs: ParityInputs, rows: Mapping[str, Sequence[int]]
) -> Iterator[AnswerProof]:
    """Compare every served model's answers with the unmerged adapter's.

    One served model at a time is in memory, next to the base.
    """
    opened, base = jobs[0].opened, jobs[0].model
    models = [path for path in (inputs.fused, inputs.gguf) if path]
    if not models:
        return
    with opened.applied(jobs[0].candidate):
        unmerged = [_ask(job, rows[job.dataset.name]) for job in jobs]
    for path in models:
        model = load_gguf(path, base) if path == inputs.gguf else load_model(path, base.dtype)
        opened_model = replace(opened, model=model)
        for job, expected in zip(jobs, unmerged, strict=True):
            name = job.dataset.name
            answers = _ask(replace(job, loaded=opened_model), rows[name])
            yield prove_answers(str(path), name, expected, answers, base.tokenizer.decode)


def _ask(job: Job, rows: Sequence[int]) -> Answers:
    """Let the model answer the rows, and score the labels if the dataset has a set of labels."""
    generated = score_all(job.generating(job.messages(rows)), "generating")
    texts = [str(fields["model_output"]) for fields in generated.values()]
    ids = job.model.tokenizer(texts, add_special_tokens=False)["input_ids"]
    tokens = dict(zip(generated, ids, strict=True))
    labels = sorted(set(job.dataset.answers))
    if not 1 < len(labels) <= MOST or "" in labels:
        return Answers(tokens, None)
    forms = {label: spellings(label) for label in labels}
    chosen = score_all(choosing(job.model, job.prompts(rows), forms, job.opened.budget), "labels")
    return Answers(tokens, {row: fields["choices"] for row, fields in chosen.items()})


def _facts(
    request: ScoringRequest, inputs: ParityInputs, opened: Opened, datasets: Sequence[EvalDataset]
) -> dict[str, object]:
    """Settings, hashes and versions of the check, as prove.json has them."""
    parts = opened.candidates[0].parts
    adapters = [{"folder": str(part.adapter.folder), "weight": part.weight} for part in parts]
    hashes = {"model": opened.digest}
    for part in parts:
        hashes[f"adapter {part.adapter.name}"] = part.adapter.digest
    for name, path in (("gguf", inputs.gguf), ("modelfile", inputs.modelfile)):
        if path:
            hashes[name] = sha256(path)
    for dataset in datasets:
        hashes[f"set {dataset.name}"] = dataset.digest
    return {
        "model": request.model,
        "adapters": adapters,
        "dtype": opened.local.dtype,
        "device": opened.local.device,
        "limit": request.limit,
        "max_new_tokens": request.max_new_tokens,
        "hashes": hashes,
        "versions": versions(*PACKAGES),
        "tuneyard": version(),
    }


def prove_prompts(
    way: str, dataset: str, expected: Mapping[int, Ids], actual: Mapping[int, Ids], decode: Decode
) -> PromptProof:
    """Compare the token ids of two ways of making prompts, row by row."""
    return PromptProof(way, dataset, len(expected), *_differing_rows(expected, actual, decode))


def prove_answers(
    model: str, dataset: str, expected: Answers, actual: Answers, decode: Decode
) -> AnswerProof:
    """Compare a model's answers with the reference's."""
    flips = [row for row, ids in expected.tokens.items() if ids != actual.tokens[row]]
    largest, largest_row = None, None
    if expected.labels is not None and actual.labels is not None:
        flips = []
        differences = []
        for row, expected_labels in expected.labels.items():
            actual_labels = actual.labels[row]
            if _likeliest(expected_labels) != _likeliest(actual_labels):
                flips.append(row)
            nats = max(abs(logp - actual_labels[label]) for label, logp in expected_labels.items())
            differences.append((nats, row))
        largest, largest_row = max(differences)
    differing = _differing_rows(expected.tokens, actual.tokens, decode)
    return AnswerProof(model, dataset, len(expected.tokens), flips, largest, largest_row, *differing)


def first_difference(row: int, expected: Ids, actual: Ids, decode: Decode) -> FirstDifference | None:
    """Find the first token in which two sequences differ. None if they are equal."""
    for place, (expected_id, actual_id) in enumerate(zip_longest(expected, actual)):
        if expected_id != actual_id:
            expected_text = decode(expected[place : place + SHOWN])
            actual_text = decode(actual[place : place + SHOWN])
            return FirstDifference(row, place, expected_id, actual_id, expected_text, actual_text)
    return None


def _differing_rows(
    expected: Mapping[int, Ids], actual: Mapping[int, Ids], decode: Decode
) -> tuple[int, FirstDifference | None]:
    """Count the rows that differ, and find the first difference."""
    differences = []
    for row, ids in expected.items():
        difference = first_difference(row, ids, actual[row], decode)
        if difference:
            differences.append(difference)
    return len(differences), next(iter(differences), None)


def _likeliest(labels: Mapping[str, float]) -> str:
    return max(labels, key=labels.__getitem__)


def holds(proof: Proof, tolerance: Tolerance) -> bool:
    """True if all prompts are equal and all answers are within the tolerance."""
    return not _beyond(proof, tolerance)


def verdict(proof: Proof, tolerance: Tolerance) -> str:
    """Summarise the check in one sentence: the extent of the parity, or every failure."""
    failures = _beyond(proof, tolerance)
    if failures:
        return f"Not equal: {'; '.join(failures)}."
    compared_ways = {prompts.way for prompts in proof.prompts}
    ways = counted(1 + len(compared_ways), "way")
    examples_by_dataset = {prompts.dataset: prompts.n for prompts in proof.prompts}
    examples = counted(sum(examples_by_dataset.values()), "example")
    equal_prompts = f"Equal on {examples}: {ways} of making prompts give the same token ids"
    if not proof.answers:
        return f"{equal_prompts}."
    model_names = {answers.model for answers in proof.answers}
    models = counted(len(model_names), "served model")
    flips = counted(sum(len(answers.flips) for answers in proof.answers), "flip")
    nats = [answers.largest for answers in proof.answers if answers.largest is not None]
    within = ""
    if nats:
        within = f", labels' log-probabilities within {max(nats):.2g} nats"
    return f"{equal_prompts}, and the answers of {models} are the unmerged adapter's ({flips}{within})."


def _beyond(proof: Proof, tolerance: Tolerance) -> list[str]:
    """Describe every difference that the tolerance does not allow."""
    failures = []
    for prompts in proof.prompts:
        if not prompts.equal:
            rows = counted(prompts.n, "row")
            failures.append(
                f"{prompts.way} gives other token ids in {prompts.differing} of {rows} of {prompts.dataset}"
            )
    for answers in proof.answers:
        if tolerance.allows(answers):
            continue
        nats = ""
        if answers.largest is not None:
            nats = f", a label's log-probability differs by {answers.largest:.2g} nats"
        total = counted(answers.n, "answer")
        failures.append(f"{answers.model} flips {len(answers.flips)} of {total} of {answers.dataset}{nats}")
    return failures


def markdown(proof: Proof, tolerance: Tolerance) -> str:
    """Write the page: the verdict, the tolerance, prompts, answers, and the checks that were not made."""
    prompts = [_prompts(prompts) for prompts in proof.prompts]
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
        parts.append("\n".join(f"- not checked: {comparison}" for comparison in proof.unchecked))
    return "\n\n".join(parts) + "\n"


def _prompts(prompts: PromptProof) -> list[str]:
    """One line of the table of prompts."""
    rows, differing = f"{prompts.n:,}", f"{prompts.differing:,}"
    return [prompts.way, prompts.dataset, rows, differing, _first(prompts.first)]


def _answer(answers: AnswerProof) -> list[str]:
    """One line of the table of answers, with the first five flipped rows."""
    flips = f"{len(answers.flips)}"
    if answers.flips:
        rows = ", ".join(map(str, answers.flips[:5]))
        if len(answers.flips) > 5:
            rows += "…"
        flips += f" (row {rows})"
    largest = "–"
    if answers.largest is not None:
        largest = f"{answers.largest:.2g} (row {answers.largest_row})"
    differing = f"{answers.differing:,}"
    return [
        answers.model,
        answers.dataset,
        f"{answers.n:,}",
        flips,
        largest,
        differing,
        _first(answers.first),
    ]


def _first(first: FirstDifference | None) -> str:
    """Describe the first difference, e.g. `row 3, token 17: 12 'a' became the end`."""
    if first is None:
        return ""
    expected = _token(first.expected, first.expected_text)
    actual = _token(first.actual, first.actual_text)
    return f"row {first.row}, token {first.place}: {expected} became {actual}"


def _token(token: int | None, text: str) -> str:
    if token is None:
        return "the end"
    return f"{token} {show_value(text)}"


def to_json(proof: Proof, tolerance: Tolerance, command: str) -> dict[str, object]:
    """The proof as plain JSON values, as prove.json has them."""
    prompts = [{**asdict(one), "equal": one.equal} for one in proof.prompts]
    answers = [{**asdict(one), "within": tolerance.allows(one)} for one in proof.answers]
    return {
        "proved": holds(proof, tolerance),
        "verdict": verdict(proof, tolerance),
        "tolerance": asdict(tolerance),
        "reference": proof.reference,
        "prompts": prompts,
        "answers": answers,
        "not_checked": list(proof.unchecked),
        **proof.facts,
        "command": command,
    }


if __name__ == "__main__":
    run_command(cli)
