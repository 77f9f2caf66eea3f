"""The plan of a scoring run: checks, and the list of jobs (model, dataset, prompts in batches).

A plan is whole before the run folder is opened. What can be refused is refused without a trace in OUT.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path

from tuneyard.core.errors import ContentError, RequestError
from tuneyard.core.execution.state import Input
from tuneyard.core.files import versions
from tuneyard.core.language.message import _, joined
from tuneyard.core.language.messages import warn, warn_once
from tuneyard.core.llamafactory.prompt import Messages
from tuneyard.core.records import ANSWERS
from tuneyard.core.records.run_record import RunIdentity
from tuneyard.eval.data.dataset import EvalDataset
from tuneyard.eval.data.prompts import WITHOUT_BOS
from tuneyard.eval.figures import metrics
from tuneyard.eval.models import Backend
from tuneyard.eval.models.backends import backend_packages
from tuneyard.eval.runs.results import DAY, MERGED, RESULTS, SHOTS_OF, read_identity
from tuneyard.eval.scoring.candidates import Candidate, Opened, warn_of_other_prompts
from tuneyard.eval.scoring.evaluation import Evaluation, Job
from tuneyard.eval.scoring.request import SETTINGS, ScoringRequest

PACKAGES = ("torch", "transformers", "tokenizers")
VERSIONS = (*PACKAGES, *backend_packages())
"""The settings that are versions. Those of a backend are among them if it scored."""


COMPARED = 16
"""Conversations with earlier answers whose prompts are compared with those of the training."""


@dataclass(frozen=True, slots=True)
class ScoringPlan:
    """A checked scoring run. `identity` is for run.json. A job leaves `jobs` when it is done."""

    request: ScoringRequest
    evaluation: Evaluation
    opened: Opened
    identity: RunIdentity
    jobs: list[Job]
    inputs: Mapping[str, Input]
    """What the results depend on, for run.json."""
    finished: list[tuple[str, str]]
    """The models and datasets that the run which this one resumes has finished."""


def plan_scoring(
    request: ScoringRequest,
    evaluation: Evaluation,
    datasets: Sequence[EvalDataset],
    opened: Opened,
    inputs: Mapping[str, Input],
) -> ScoringPlan:
    """Plan the opened models on every dataset.

    Errors are those of models, prompts and options, and `PluginError` for a broken metric.
    """
    metrics()
    opened = fit(request, evaluation, datasets, opened)
    evaluation.check_models(opened)
    kept_run = opened.backend.run
    if kept_run:
        identity = _kept_identity(kept_run, request, evaluation, opened.backend, datasets)
    else:
        if request.preset and request.temperature is None and not opened.backend.sampling.get("temperature"):
            warn(_("--preset: the model's generation_config does not sample: answers are greedy"))
        _warn_of_prompts(datasets, opened)
        if not (request.think or evaluation.plain_prompts):
            _warn_of_histories(request, datasets, opened)
        identity = _identity(request, evaluation, opened, datasets)
    jobs: list[Job] = []
    finished = []
    for candidate, dataset in product(opened.candidates, datasets):  # planned before anything is scored
        if request.resume and (request.out / candidate.name / dataset.name / RESULTS).is_file():
            finished.append((candidate.name, dataset.name))
            continue
        jobs += plan_jobs(request, evaluation, dataset, opened.backend, candidate)
    return ScoringPlan(request, evaluation, opened, identity, jobs, inputs, finished)


def _warn_of_histories(request: ScoringRequest, datasets: Sequence[EvalDataset], opened: Opened) -> None:
    """Warn of each adapter that was trained after other texts of earlier turns than it is now prompted with.

    The first conversations with an earlier answer are compared.
    """
    talks: list[Messages] = []
    for dataset in datasets:
        for conversation in dataset.conversations[: request.limit]:
            if len(talks) < COMPARED and any(each["role"] in ANSWERS for each in conversation.messages):
                talks.append(conversation.messages)
    if talks:
        warn_of_other_prompts(opened.backend.tokenizer, opened.candidates, request.template, talks)


def plan_jobs(
    request: ScoringRequest,
    evaluation: Evaluation,
    dataset: EvalDataset,
    backend: Backend,
    candidate: Candidate,
) -> list[Job]:
    """The job of a candidate on a dataset. Before it, the job of further answers that its results need."""
    job = Job(request, backend, candidate, dataset, evaluation)
    further = None if backend.run else evaluation.further(job)
    if further is None:
        return [job]
    return [Job(request, backend, candidate, dataset, evaluation, further, main=job), job]


def fit(
    request: ScoringRequest, evaluation: Evaluation, datasets: Sequence[EvalDataset], opened: Opened
) -> Opened:
    """The models with the evaluation's prompts, shots and images.

    A suite opens the models once, and each of its steps may draw its answers or not.
    """
    backend = opened.backend
    if request.apply == MERGED:
        backend = replace(backend, merged=True)
    if request.draws:
        backend = replace(backend, draws=True, sampling=_sampling(request, backend), seed=request.seed)
    with_images = [dataset for dataset in datasets if dataset.images]
    if with_images:
        if opened.workers:
            images = [path for dataset in with_images for path in dataset.images.values()]
            opened.workers.check_paths(inputs=images)
        backend = backend.seeing(request.template or "", request.think, with_images[0].pixels)
    opened = replace(opened, backend=backend)
    if evaluation.plain_prompts:
        opened = opened.with_plain_prompts(evaluation.plain_prompts)
    if any(dataset.shots for dataset in datasets):
        opened = opened.with_shots(datasets)
    return opened


def _sampling(request: ScoringRequest, backend: Backend) -> dict[str, float]:
    """How answers are drawn: --temperature and --top-p go before the generation_config of --preset."""
    sampling: dict[str, float] = {"top_k": 0}  # off: without it transformers takes the 50 most likely tokens
    if request.preset:
        sampling = dict(backend.sampling)
    for name in ("temperature", "top_p"):
        value = getattr(request, name)
        if value is not None:
            sampling[name] = value
    return sampling


def _warn_of_prompts(datasets: Sequence[EvalDataset], opened: Opened) -> None:
    """Warn if prompts differ from the prompts of other tools or of the training."""
    if any(candidate.prompting.source == WITHOUT_BOS for candidate in opened.candidates):
        warn_once(
            _(
                "no chat template: prompted without the BOS that the tokenizer adds, as "
                "LLaMA-Factory's template `empty` trains; --bos begins prompts with it, as "
                "lm-evaluation-harness does"
            )
        )
    for dataset in datasets:
        unsplit = dataset.origin.unsplit
        if unsplit is not None and unsplit.is_reworded:
            warn_once(
                _(
                    "{path}: training words some of these prompts otherwise (a prefix, say): --dataset "
                    "{name} has the held-out ones as they are trained",
                    path=dataset.path,
                    name=unsplit.instead[0],
                )
            )


def _identity(
    request: ScoringRequest, evaluation: Evaluation, opened: Opened, datasets: Sequence[EvalDataset]
) -> RunIdentity:
    """Settings, models, prompts and datasets that a resumed run must share with the first one."""
    settings: dict[str, object] = {
        "command": request.command,
        "model": opened.backend.digest,
        **evaluation.settings(request, opened.backend),
        **{name: getattr(request, name) for name in SETTINGS},
    }
    if request.dataset_dir:
        settings["dataset_dir"] = str(request.dataset_dir)
    if request.draws:
        settings["sampling"] = dict(opened.backend.sampling)
        if request.seed is not None:
            settings["seed"] = request.seed
    settings |= {
        "dtype": opened.backend.dtype,
        "device": opened.backend.device,
        "batch_tokens": opened.backend.budget,
        **opened.backend.settings,
    }
    for candidate in opened.candidates:
        if candidate.prompting.day is not None:
            settings[DAY] = candidate.prompting.day.isoformat()
    for dataset in datasets:
        if dataset.shots:
            settings[f"{SHOTS_OF}{dataset.name}"] = dataset.shots.digest
    settings.update(versions(*PACKAGES))
    return {
        "settings": settings,
        "models": {candidate.name: candidate.identity for candidate in opened.candidates},
        "prompts": {candidate.name: candidate.prompting.identity for candidate in opened.candidates},
        "datasets": {dataset.name: dataset.digest for dataset in datasets},
    }


def _kept_identity(
    source: Path,
    request: ScoringRequest,
    evaluation: Evaluation,
    backend: Backend,
    datasets: Sequence[EvalDataset],
) -> RunIdentity:
    """The identity of the outputs in `source`, as they are scored again.

    Errors if the outputs are unfinished, or come from other data.
    """
    run = read_identity(source)
    source_folder, out_folder = source.resolve(), request.out.resolve()
    if source_folder.is_relative_to(out_folder) or out_folder.is_relative_to(source_folder):
        raise RequestError(
            _(
                "--rescore {path}: --out {out}: expected a folder of its own: choose another --out",
                path=source,
                out=request.out,
            )
        )
    digests = {dataset.name: dataset.digest for dataset in datasets}
    for dataset in datasets:
        if dataset.name not in run["datasets"]:
            raise RequestError(
                _(
                    "--rescore {path}: no outputs on {name}; name --dataset one of these: {names}",
                    path=source,
                    name=dataset.name,
                    names=joined(run["datasets"]),
                )
            )
        if digests[dataset.name] != run["datasets"][dataset.name]:
            raise ContentError(
                _(
                    "--rescore {path}: its outputs on {name} are of another {data}: put it back as it "
                    "was, or score without --rescore",
                    path=source,
                    name=dataset.name,
                    data=dataset.path,
                )
            )
    for model, dataset in product(run["models"], datasets):
        folder = source / model / dataset.name
        if not (folder / RESULTS).is_file():
            raise RequestError(_("{path}: unfinished: finish it with --resume, then --rescore", path=folder))
    settings = {**run["settings"], **evaluation.settings(request, backend), "cluster": request.cluster}
    if request.dataset_dir:
        settings["dataset_dir"] = str(request.dataset_dir)
    return {**run, "settings": settings, "datasets": digests}
