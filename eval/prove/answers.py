"""Answers of the unmerged adapter, and of the files that serve it: the fused model and the GGUF."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from tuneyard.adapters.model.weighted import WeightedAdapter
from tuneyard.core.datasets.labels import labels_of
from tuneyard.core.language.message import tr
from tuneyard.core.llamafactory.prompt import Tokenizer
from tuneyard.eval.data.dataset import EvalDataset
from tuneyard.eval.figures.labels import spellings
from tuneyard.eval.models import Backend
from tuneyard.eval.models.batch_plan import BatchPlan, Fields, Ids, Prompts, plan_batches, score_all
from tuneyard.eval.models.generate import Generated, generate
from tuneyard.eval.models.load import in_this_process, load_gguf, load_model
from tuneyard.eval.prove.proof import Answers, Labels, ParityInputs, ProofPart, Texts, prove_answers
from tuneyard.eval.scoring.candidates import Candidate
from tuneyard.eval.scoring.request import ScoringRequest


@dataclass(frozen=True, slots=True)
class Reference:
    """An adapter as it was trained, on a dataset. `rows` are those that fit the context.

    `trained_ids` are the prompts of the training, `scored_ids` those of the scoring, by row. Answers follow
    the scoring's. `ends` are the tokens that end an answer in training.
    """

    request: ScoringRequest
    backend: Backend
    candidate: Candidate
    dataset: EvalDataset
    trained_ids: Prompts
    scored_ids: Prompts
    rows: Sequence[int]
    ends: Sequence[int]

    def answers(self, adapters: Sequence[WeightedAdapter] | None = None) -> Answers:
        """Answer the rows with the unmerged adapter, or with other adapters and weights."""
        self.backend.apply(self.candidate.adapters if adapters is None else tuple(adapters))
        return answer_rows(self)


def prove_files(references: Sequence[Reference], inputs: ParityInputs) -> Iterator[ProofPart]:
    """Compare the answers of the fused model and the GGUF with the unmerged adapter's.

    `references` are those of one adapter. One served model at a time is in memory, next to the base.
    """
    models = [path for path in (inputs.fused, inputs.gguf) if path]
    if not models:
        return
    expected_answers = [reference.answers() for reference in references]
    for path in models:
        base = in_this_process(references[0].backend)
        model = load_gguf(path, base) if path == inputs.gguf else load_model(path, base.dtype)
        model.budget = base.budget
        for reference, expected in zip(references, expected_answers, strict=True):
            answers = answer_rows(replace(reference, backend=model))
            name = reference.dataset.name
            yield prove_answers(str(path), name, expected, answers, base.tokenizer.decode)


def answer_rows(reference: Reference) -> Answers:
    """Let the model answer the rows, and score the labels if the dataset has a set of labels."""
    model = in_this_process(reference.backend)
    longest = reference.request.max_new_tokens
    prompts = {row: reference.scored_ids[row] for row in reference.rows}
    texts: dict[int, Generated] = {}

    def score(batch: Sequence[int]) -> list[Fields]:
        answers = generate(model, [prompts[row] for row in batch], longest)
        texts.update(zip(batch, answers, strict=True))
        return [{} for _unused in batch]

    lengths = {row: len(ids) + longest for row, ids in prompts.items()}
    batch_plan = BatchPlan(plan_batches(lengths, model.budget), {}, score)
    score_all(batch_plan, tr("generating"))
    texts = dict(sorted(texts.items()))
    labels, forms = None, label_forms(reference.dataset)
    if forms:  # texts end where the file says; a label means the same text in all of them
        with_training_ends = model.as_trained(model.tokenizer, reference.candidate.prompting.ends)
        labels = score_labels(with_training_ends, prompts, forms)
    return Answers(tokens_of(texts, model.tokenizer), labels, texts)


def score_labels(backend: Backend, prompts: Prompts, forms: Mapping[str, Sequence[str]]) -> Labels:
    """The log-probability of each label after each prompt."""
    chosen = score_all(backend.choosing(prompts, forms), tr("labels"))
    return {row: fields["choices"] for row, fields in chosen.items()}


def label_forms(dataset: EvalDataset) -> dict[str, list[str]]:
    """The labels of a dataset, each with its spellings. {} if it has too many different answers.

    Few answers are compared even if they are long: probabilities show smaller differences than texts do.
    """
    return {label: spellings(label) for label in labels_of(dataset.answers, declared=True)}


def tokens_of(texts: Texts, tokenizer: Tokenizer) -> dict[int, Ids]:
    """Token ids of generated texts, by row."""
    if not texts:
        return {}
    ids = tokenizer([answer.text for answer in texts.values()], add_special_tokens=False)["input_ids"]
    return dict(zip(texts, ids, strict=True))
