"""Scoring in workers (--workers, --ray): what they are sent, and what each of them does with it.

A work item is a part of a job: some of its batches. The batches are planned as for one process, so that a row
has the same neighbours with any number of workers, and the files have the same bytes. Workers read models,
adapters and images, and return the fields of the rows. Only the driver reads data and writes files.
"""

import contextlib
import uuid
from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from tuneyard.adapters.store import open_adapter
from tuneyard.adapters.weighted import WeightedAdapter
from tuneyard.core.errors import ContentError
from tuneyard.core.execution import Executor, InThisProcess, WorkItem, once_per_worker
from tuneyard.core.execution.options import executor_of
from tuneyard.eval.backends.scorers import Fields, Scorer, score_in_halves
from tuneyard.eval.backends.worker_model import resources, worker_model, worker_slots
from tuneyard.eval.datasets.dataset import EvalDataset
from tuneyard.eval.read.results import MERGED
from tuneyard.eval.scoring.candidates import Opened, choose_candidates
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
    """Some batches of a job, or of its `further` answers."""

    candidate: str
    dataset: str
    batches: list[list[int]]
    further: bool = False

    @property
    def name(self) -> str:
        """Name for messages about a lost worker."""
        name = f"{self.candidate} on {self.dataset}"
        if self.further:
            return f"{name}, further answers"
        return f"{name}, {sum(map(len, self.batches))} rows from row {self.batches[0][0]} on"


def setup_of(plan: ScoringPlan, opened: Opened) -> ScoringSetup:
    """What the workers need for a plan. Paths are absolute, since a worker may run in another folder."""
    if opened.base is None:
        raise ValueError("only a model folder is scored by workers")
    datasets = {}
    for job in plan.jobs:
        images = {name: path.resolve() for name, path in job.dataset.images.items()}
        datasets[job.dataset.name] = replace(job.dataset, images=images)
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
        digest=opened.digest,
        device=opened.model.device,
        budget=opened.budget,
        candidates=candidates,
    )


def parts_of(job: Job, batches: Sequence[list[int]], rows: int, *, further: bool = False) -> list[Part]:
    """Put batches of a job into parts of about so many rows."""
    parts: list[Part] = []
    gathered: list[list[int]] = []
    for batch in batches:
        gathered.append(batch)
        if sum(map(len, gathered)) >= rows:
            parts.append(Part(job.candidate.name, job.dataset.name, gathered, further))
            gathered = []
    if gathered:
        parts.append(Part(job.candidate.name, job.dataset.name, gathered, further))
    return parts


def rows_of_part(pending: int, workers: Executor, base: Path) -> int:
    """Rows in a part, for so many rows in all. The bytes of the files do not depend on it."""
    count = max(1, workers.fitting(resources(workers, base)))
    return max(1, min(ROWS, pending // (PARTS * count)))


def score_parts(
    workers: Executor, setup: ScoringSetup, parts: Iterable[Part]
) -> Generator[list[list[Fields]]]:
    """Score parts in the workers; yield the fields of each part's rows by batch, in the order of parts."""
    items = (WorkItem(part.name, score_part, (part,)) for part in parts)
    needed = resources(workers, setup.base)
    ahead = AHEAD * workers.fitting(needed)
    scored = workers.map(items, common=setup, resources=needed, ahead=ahead)
    with contextlib.closing(scored) as results:
        for result in results:
            yield result.record_or_raise()


def score_part(setup: ScoringSetup, part: Part) -> list[list[Fields]]:
    """Score a part in this worker."""
    return once_per_worker(_Scoring, setup).score(part)


class _Scoring:
    """A plan in a worker: it plans one job after the other, as the driver did."""

    def __init__(self, setup: ScoringSetup) -> None:
        self.setup = setup
        # the arguments with which it was loaded for the plan, so that it is loaded once
        self.base = worker_model(setup.base, setup.request.dtype, setup.request.quantize)
        model = self.base.model
        if model.device != setup.device:
            raise ContentError(
                f"{setup.base}: a worker has it on {model.device}, another on {setup.device}: their figures "
                "differ in the last digits. Give all workers a GPU, or none"
            )
        parts_by_name = {}
        for name, references in setup.candidates.items():
            parts = [WeightedAdapter(open_adapter(str(folder)), weight) for folder, weight in references]
            parts_by_name[name] = tuple(parts)
        candidates = choose_candidates(setup.request, model.tokenizer, parts_by_name)
        merged = setup.request.apply == MERGED
        opened = Opened(model, setup.digest, candidates, setup.budget, merged, setup.base)
        self.task, self.opened = fit(setup.request, setup.task, [*setup.datasets.values()], opened)
        self._planned: tuple[object, Scorer] | None = None

    def score(self, part: Part) -> list[list[Fields]]:
        """The fields of the rows, by batch."""
        scorer = self._scorer(part)
        return [score_in_halves(scorer, batch) for batch in part.batches]

    def _scorer(self, part: Part) -> Scorer:
        """The scorer of a part's job, with the weights of its candidate applied to the model."""
        setup = self.setup
        key = (part.candidate, part.dataset, part.further)
        if self._planned and self._planned[0] == key:
            return self._planned[1]
        if self._planned:
            self._planned[1].release()
            self._planned = None
        named = {candidate.name: candidate for candidate in self.opened.candidates}
        candidate = named[part.candidate]
        self.base.apply((setup.key, part.candidate), candidate.parts, merged=self.opened.merged)
        job = Job(setup.request, self.opened, candidate, setup.datasets[part.dataset])
        scorer = self.task.scorer(job)
        if part.further:
            further = self.task.further_scorer(replace(job, scorer=scorer))
            if further is None:
                raise ValueError(f"{part.name}: the driver planned further answers")
            scorer = further
        self._planned = (key, scorer)
        return scorer
