"""Scoring in workers (--workers, --ray): their work items, and the function that scores one.

A work item is a batch of a job. The batches are planned as for one process, so that a row has the same
neighbours with any number of workers, and the files have the same bytes. Workers read models,
adapters and images, and return the fields of the rows. Only the driver reads data and writes files.
"""

import contextlib
import uuid
from collections.abc import Generator, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tuneyard.adapters.model.store import open_adapter
from tuneyard.adapters.model.weighted import WeightedAdapter
from tuneyard.core.errors import ContentError
from tuneyard.core.execution import Executor, WorkItem, once_per_worker
from tuneyard.core.language.message import _
from tuneyard.eval.data.dataset import EvalDataset
from tuneyard.eval.models.batch_plan import Fields, score_in_halves
from tuneyard.eval.models.worker_model import resources, worker_model
from tuneyard.eval.scoring.candidates import Opened, choose_candidates
from tuneyard.eval.scoring.evaluation import Evaluation, Job
from tuneyard.eval.scoring.plan import ScoringPlan, fit, plan_jobs
from tuneyard.eval.scoring.request import ScoringRequest

AHEAD = 4  # batches for each worker that are sent before the first of them is written


@dataclass(frozen=True, slots=True)
class ScoringSetup:
    """Everything that a worker needs to score any part of a plan. Two are equal if their keys are."""

    key: str
    request: ScoringRequest = field(compare=False)
    evaluation: Evaluation = field(compare=False)
    datasets: Mapping[str, EvalDataset] = field(compare=False)
    base: Path = field(compare=False)
    device: str = field(compare=False)
    budget: int = field(compare=False)
    candidates: Mapping[str, Sequence[tuple[Path, float]]] = field(compare=False)
    """The adapter folders of each candidate and their weights."""


def score_in_workers(
    workers: Executor, plan: ScoringPlan, pending: Mapping[Job, Sequence[list[int]]]
) -> Generator[list[Fields]]:
    """The fields of each batch of all jobs, in their order."""
    needed = resources(workers, plan.opened.backend.folder)
    items = [item_of(job, batch) for job, batches in pending.items() for batch in batches]
    setup, ahead = _setup(plan, pending), AHEAD * workers.fitting(needed)
    with contextlib.closing(workers.map(items, common=setup, resources=needed, ahead=ahead)) as results:
        for result in results:
            yield result.record_or_raise()


def _setup(plan: ScoringPlan, jobs: Iterable[Job]) -> ScoringSetup:
    """What the workers need for the jobs. Paths are absolute, since a worker may run in another folder."""
    backend = plan.opened.backend
    candidates: dict[str, list[tuple[Path, float]]] = {}
    for candidate in plan.opened.candidates:
        if not candidate.shots:  # every worker adds the base with shots by itself
            weighted_adapters = [
                (weighted.adapter.folder.resolve(), weighted.weight) for weighted in candidate.adapters
            ]
            candidates[candidate.name] = weighted_adapters
    return ScoringSetup(
        key=uuid.uuid4().hex,
        request=plan.request,
        evaluation=plan.evaluation,
        datasets={job.dataset.name: job.dataset for job in jobs},
        base=backend.folder.resolve(),
        device=backend.device,
        budget=backend.budget,
        candidates=candidates,
    )


def item_of(job: Job, batch: list[int]) -> WorkItem:
    """The work on a batch of a job. Its name is for messages about lost workers."""
    candidate, dataset = job.candidate.name, job.dataset.name
    about = _("{count} rows from row {first} on", count=len(batch), first=batch[0])
    if job.main is not None:
        about = _("further answers")
    arguments = (candidate, dataset, job.main is not None, batch)
    name = _("{model} on {dataset}, {about}", model=candidate, dataset=dataset, about=about)
    return WorkItem(name, score_batch, arguments)


def score_batch(
    setup: ScoringSetup, candidate: str, dataset: str, is_further: bool, batch: list[int]
) -> list[Fields]:
    """Score a batch in this worker, which keeps the planned jobs of one candidate on one dataset."""
    jobs = once_per_worker(_jobs, setup, candidate, dataset)
    job = jobs[0 if is_further else -1]
    job.backend.apply(job.candidate.adapters)
    return score_in_halves(job.batch_plan, batch)


def _jobs(setup: ScoringSetup, candidate: str, dataset: str) -> list[Job]:
    """Plan the jobs of a candidate on a dataset by their names, as the driver did."""
    opened = once_per_worker(_open, setup)
    (of_name,) = [each for each in opened.candidates if each.name == candidate]
    return plan_jobs(setup.request, setup.evaluation, setup.datasets[dataset], opened.backend, of_name)


def _open(setup: ScoringSetup) -> Opened:
    """The models of a plan in this worker."""
    request = setup.request
    # the arguments with which it was loaded for the plan, so that it is loaded once
    model = worker_model(setup.base, request.dtype, request.quantize)
    if model.device != setup.device:
        raise ContentError(
            _(
                "{base}: a worker has it on {device}, another on {other}: their figures differ in "
                "the last digits. Give all workers a GPU, or none",
                base=setup.base,
                device=model.device,
                other=setup.device,
            )
        )
    model.budget = setup.budget
    adapters_by_name = {}
    for name, references in setup.candidates.items():
        weighted_adapters = [
            WeightedAdapter(open_adapter(str(folder)), weight) for folder, weight in references
        ]
        adapters_by_name[name] = tuple(weighted_adapters)
    opened = Opened(model, choose_candidates(request, model.tokenizer, adapters_by_name))
    return fit(request, setup.evaluation, [*setup.datasets.values()], opened)
