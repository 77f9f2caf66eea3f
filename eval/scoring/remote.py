"""Scoring in workers (--workers, --ray): what they are sent, and what each of them does with it.

A work item is a part of a job: some of its batches. The batches are planned as for one process, so that a row
has the same neighbours with any number of workers, and the files have the same bytes. Workers read models,
adapters and images, and return the fields of the rows. Only the driver reads data and writes files.
"""

import contextlib
import uuid
from collections import deque
from collections.abc import Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from tuneyard.adapters.store import open_adapter
from tuneyard.adapters.weighted import WeightedAdapter
from tuneyard.core.errors import ContentError
from tuneyard.core.execution import Executor, InThisProcess, WorkItem, once_per_worker
from tuneyard.core.execution.options import executor_of
from tuneyard.eval.backends.scorers import Fields, score_in_halves
from tuneyard.eval.backends.worker_model import resources, worker_model, worker_slots
from tuneyard.eval.datasets.dataset import EvalDataset
from tuneyard.eval.scoring.candidates import Opened, choose_candidates, set_up
from tuneyard.eval.scoring.options import ScoringRequest
from tuneyard.eval.scoring.plan import ScoringPlan, fit
from tuneyard.eval.scoring.task import Job, Task

ROWS = 128  # in a part, at most, unless a batch has more: what is lost with a worker
PARTS = 4  # for each worker, at least, so that all of them end at about one time
AHEAD = 4  # parts for each worker that are sent before the first of them is written


@contextlib.contextmanager
def workers_of(request: ScoringRequest) -> Iterator[Executor | None]:
    """The workers of --workers or --ray inside the block. None: this process scores."""
    with executor_of(request.workers, request.ray, slots=worker_slots) as executor:
        yield None if isinstance(executor, InThisProcess) else executor


@dataclass(frozen=True, slots=True)
class ScoringSetup:
    """Everything that a worker needs to score any part of a plan. Two are equal if their keys are."""

    key: str
    request: ScoringRequest = field(compare=False)
    task: Task = field(compare=False)
    datasets: Mapping[str, EvalDataset] = field(compare=False)
    base: Path = field(compare=False)
    digest: str = field(compare=False)
    device: str = field(compare=False)
    budget: int = field(compare=False)
    candidates: Mapping[str, Sequence[tuple[Path, float]]] = field(compare=False)
    """The adapter folders of each candidate and their weights."""


@dataclass(frozen=True, slots=True)
class Part:
    """Some batches of a job."""

    job: Job
    batches: list[list[int]]

    @property
    def item(self) -> WorkItem:
        """The part as an item for a worker, with a name for messages about a lost one."""
        candidate, dataset = self.job.candidate.name, self.job.dataset.name
        is_further = self.job.main is not None
        about = f"{sum(map(len, self.batches))} rows from row {self.batches[0][0]} on"
        if is_further:
            about = "further answers"
        name = f"{candidate} on {dataset}, {about}"
        return WorkItem(name, score_part, (candidate, dataset, is_further, self.batches))


def setup_of(plan: ScoringPlan) -> ScoringSetup:
    """What the workers need for a plan. Paths are absolute, since a worker may run in another folder."""
    opened = plan.opened
    if opened.base is None:
        raise ValueError("only a model folder is scored by workers")
    datasets = {}
    for dataset in plan.datasets:
        images = {name: path.resolve() for name, path in dataset.images.items()}
        datasets[dataset.name] = replace(dataset, images=images)
    candidates: dict[str, list[tuple[Path, float]]] = {}
    for candidate in opened.candidates:
        if not candidate.shots:  # every worker adds the base with shots by itself
            parts = [(part.adapter.folder.resolve(), part.weight) for part in candidate.parts]
            candidates[candidate.name] = parts
    return ScoringSetup(
        key=uuid.uuid4().hex,
        request=plan.request,
        task=plan.task,
        datasets=datasets,
        base=opened.base.resolve(),
        digest=opened.backend.digest,
        device=opened.backend.device,
        budget=opened.backend.budget,
        candidates=candidates,
    )


def parts_of(job: Job, batches: Sequence[list[int]], rows: int) -> list[Part]:
    """Put batches of a job into parts of about so many rows."""
    parts: list[Part] = []
    count = rows
    for batch in batches:
        if count >= rows:
            parts.append(Part(job, []))
            count = 0
        parts[-1].batches.append(batch)
        count += len(batch)
    return parts


def rows_of_part(pending: int, workers: Executor, base: Path) -> int:
    """Rows in a part, for so many rows in all. The bytes of the files do not depend on it."""
    count = max(1, workers.fitting(resources(workers, base)))
    return max(1, min(ROWS, pending // (PARTS * count)))


def score_parts(plan: ScoringPlan, parts: deque[Part]) -> Generator[list[list[Fields]]]:
    """Take parts and score them; yield the fields of each part's rows by batch, in the order of parts."""
    workers, base = plan.opened.workers, plan.opened.base
    if workers is None or base is None:
        while parts:
            part = parts.popleft()
            yield score_batches(part.job, part.batches)
        return
    needed = resources(workers, base)
    ahead = AHEAD * workers.fitting(needed)
    items = (part.item for part in parts)
    scored = workers.map(items, common=setup_of(plan), resources=needed, ahead=ahead)
    with contextlib.closing(scored) as results:
        for result in results:
            yield result.record_or_raise()


def score_batches(job: Job, batches: Sequence[list[int]]) -> list[list[Fields]]:
    """Score batches of a job in this process, with the adapters of its candidate applied."""
    job.backend.apply(job.candidate.parts)
    return [score_in_halves(job.scorer, batch) for batch in batches]


def score_part(
    setup: ScoringSetup, candidate: str, dataset: str, is_further: bool, batches: list[list[int]]
) -> list[list[Fields]]:
    """Score a part in this worker."""
    job = once_per_worker(_Worker, setup).job(candidate, dataset, is_further)
    return score_batches(job, batches)


class _Worker:
    """A plan in a worker: it plans one job after the other, as the driver did."""

    def __init__(self, setup: ScoringSetup) -> None:
        self.setup = setup
        request = setup.request
        # the arguments with which it was loaded for the plan, so that it is loaded once
        model = worker_model(setup.base, request.dtype, request.quantize)
        if model.device != setup.device:
            raise ContentError(
                f"{setup.base}: a worker has it on {model.device}, another on {setup.device}: their figures "
                "differ in the last digits. Give all workers a GPU, or none"
            )
        model.digest, model.budget = setup.digest, setup.budget
        set_up(model, request)
        parts_by_name = {}
        for name, references in setup.candidates.items():
            parts = [WeightedAdapter(open_adapter(str(folder)), weight) for folder, weight in references]
            parts_by_name[name] = tuple(parts)
        opened = Opened(model, choose_candidates(request, model.tokenizer, parts_by_name))
        self.task, self.opened = fit(request, setup.task, [*setup.datasets.values()], opened)
        self._planned: tuple[object, Job] | None = None

    def job(self, candidate: str, dataset: str, is_further: bool) -> Job:
        """A job by its names. The one before is let go."""
        key = (candidate, dataset, is_further)
        if self._planned and self._planned[0] == key:
            return self._planned[1]
        self._planned = None
        (of_name,) = [each for each in self.opened.candidates if each.name == candidate]
        job = Job(self.setup.request, self.opened, of_name, self.setup.datasets[dataset], self.task)
        if is_further:
            job = job.further()
        self._planned = (key, job)
        return job
