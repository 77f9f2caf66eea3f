"""Compare what servers offer with the adapters here: prompts, labels, greedy texts and chat answers."""

from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from tuneyard.core.errors import RequestError
from tuneyard.core.language.message import _, counted, tr, with_texts
from tuneyard.core.text.quoting import one_line
from tuneyard.eval.models.batch_plan import Ids, chunks, tokenise
from tuneyard.eval.models.connection import Connection, Item, RefusedError, Result
from tuneyard.eval.models.open_server import open_served
from tuneyard.eval.models.served import LLAMA_CPP, VLLM, ServedModel, read_models
from tuneyard.eval.models.server import ROWS, Server
from tuneyard.eval.prove.answers import Reference, label_forms, score_labels, tokens_of
from tuneyard.eval.prove.diagnosis import Evidence, diagnose
from tuneyard.eval.prove.proof import (
    CHATS,
    Answers,
    ParityInputs,
    Proof,
    ProofPart,
    Texts,
    Tolerance,
    prove_answers,
    prove_chat,
    prove_prompts,
)
from tuneyard.eval.scoring.candidates import Candidate, Opened

AGAIN = _("nothing is written; run the command again")
BASE_ALONE = ""  # its name among those of --adapter
OFFERED = {
    "prompts": _("prompts"),
    "labels": _("labels' log-probabilities"),
    "texts": _("greedy texts after our ids"),
    "chat": _("chat answers"),
}
"""What servers are asked for, by the names in `Server.missing`."""


@dataclass(frozen=True, slots=True)
class Pairing:
    """A served model and the candidate that it should answer like. `title` is its name in the tables."""

    served: Server
    title: str
    candidate: Candidate


def connect(url: str, inputs: ParityInputs, opened: Opened, reference: str) -> Server:
    """Open the server's model: --served-model, otherwise the first adapter's name if the server has it.

    `reference` is the base's name, for a server of one model under any name.
    """
    connection, name = Connection(url, inputs.timeout, AGAIN), inputs.served_model
    offers = read_models(connection, name or reference)
    if name is None:
        of_candidates = [_offer_of(candidate, offers) for candidate in opened.candidates]
        name = next((offer.name for offer in of_candidates if offer), None)
    backend = opened.backend
    return open_served(offers, name or reference, name is not None, backend.tokenizer, backend.ends)


def _offer_of(candidate: Candidate, offers: Sequence[ServedModel]) -> ServedModel | None:
    """The model that requests can name like the candidate, its very own name first."""
    matching = [offer for offer in offers if offer.number is None and candidate.name in offer.names]
    return min(matching, key=lambda offer: offer.name != candidate.name, default=None)


def pair_models(served: Server, candidates: Sequence[Candidate]) -> tuple[list[Pairing], list[str]]:
    """Pair each model and adapter of a server with the candidate of its name; the others are not checked.

    The model next to adapters is paired with the base, a server's only model with the only candidate.
    `RequestError` if nothing can be paired.
    """
    url = served.url
    pairings: list[Pairing] = []
    unchecked: list[str] = []
    adapters = [offer for offer in served.offers if offer.is_adapter]
    models = [offer for offer in served.offers if not offer.is_adapter]
    applied = [adapter for adapter in adapters if adapter.scale]  # to requests that name none
    for adapter in adapters:
        candidate = _named(adapter, candidates)
        if candidate is None:
            unchecked.append(
                _("adapter {adapter} of {url}: no --adapter has this name", adapter=adapter.name, url=url)
            )
            continue
        adapted = served
        if applied == [adapter] and adapter.scale == 1:
            models = []
        else:
            adapted = replace(served, model=adapter)
        pairings.append(Pairing(adapted, _title(adapter.name, url), candidate))
    has_adapters = bool(pairings)
    for model in models:
        candidate = _named(model, candidates)
        if candidate is None and has_adapters and not applied:
            candidate = base_alone(candidates)
        elif candidate is None and len(candidates) == len(models) == 1:
            candidate = candidates[0]
        if candidate is None:
            unchecked.append(
                _("model {model} of {url}: no --adapter has this name", model=model.name, url=url)
            )
            continue
        title = _title(Path(model.name).name, url)
        if model.engine == LLAMA_CPP and adapters:
            title = _("{title} without an adapter in the request", title=title)
        server = served
        if model.name != served.model.name:
            server = open_served(served.offers, model.name, True, served.tokenizer, served.ends)
        pairings.append(Pairing(server, title, candidate))
    if not pairings:
        offers = ", ".join(offer.name for offer in served.offers)
        names = ", ".join(candidate.name for candidate in candidates)
        raise RequestError(
            _(
                "{url} offers {offers}, and --adapter names {names}: name an adapter as the server "
                "does, --adapter NAME=DIR",
                url=url,
                offers=offers,
                names=names,
            )
        )
    return pairings, unchecked


def _title(name: str, url: str) -> str:
    return _("{name} at {url}", name=one_line(name), url=one_line(url))


def base_alone(candidates: Sequence[Candidate]) -> Candidate:
    """The base without an adapter, prompted like the first candidate."""
    return replace(candidates[0], name=BASE_ALONE, adapters=())


def _named(offer: ServedModel, candidates: Sequence[Candidate]) -> Candidate | None:
    """The candidate with the best of the offer's names."""
    by_name = {candidate.name: candidate for candidate in candidates}
    return next((by_name[name] for name in offer.names if name in by_name), None)


def prove_servers(
    servers: Sequence[Server],
    references: Mapping[str, Sequence[Reference]],
    candidates: Sequence[Candidate],
    proof: Proof,
) -> None:
    """Compare every model and adapter of the servers on every dataset. `references` are by candidate."""
    pairings = []
    for served in servers:
        of_server, unchecked = pair_models(served, candidates)
        pairings += of_server
        proof.unchecked.extend(unchecked)
    paired_names = {pairing.candidate.name for pairing in pairings}
    for candidate in candidates:
        if servers and candidate.name not in paired_names:
            proof.unchecked.append(_("adapter {adapter}: no server offers it", adapter=candidate.name))
    base = base_alone(candidates)
    of_base = [replace(reference, candidate=base) for reference in references[candidates[0].name]]
    for name, references_of_name in {**references, BASE_ALONE: of_base}.items():
        of_name = [pairing for pairing in pairings if pairing.candidate.name == name]
        for reference in references_of_name if of_name else ():
            expected = reference.answers()
            for pairing in of_name:
                prove_served(pairing, reference, expected, proof)


def prove_served(pairing: Pairing, reference: Reference, expected: Answers, proof: Proof) -> None:
    """Compare everything that a served model offers on a dataset, and name the causes of differences."""
    title = pairing.title
    dataset, tokenizer = reference.dataset.name, reference.backend.tokenizer
    server = pairing.served.as_trained(tokenizer, reference.backend.ends)
    evidence = ask(server, reference, expected, proof.tolerance)
    comparisons = []
    if evidence.served_ids is not None:
        ids = evidence.served_ids
        comparisons.append(prove_prompts(title, dataset, evidence.expected_ids, ids, tokenizer.decode))
    served = evidence.served
    if served.labels is not None or served.tokens is not None:
        comparisons.append(prove_answers(title, dataset, expected, served, tokenizer.decode))
    if evidence.chat is not None:

        def encode(text: str) -> Ids:
            return list(tokenizer(text, add_special_tokens=False)["input_ids"])

        greedy, chat = evidence.greedy, evidence.chat
        comparisons.append(prove_chat(title, dataset, expected.texts, greedy, chat, encode, tokenizer.decode))
    if any(one.failure(proof.tolerance) for one in comparisons):
        for cause in diagnose(evidence):
            proof.causes.append({"model": title, "dataset": dataset, **asdict(cause)})
    proof.comparisons.extend(comparisons)
    proof.unchecked.extend(_unchecked(pairing, reference, evidence, comparisons))


def ask(served: Server, reference: Reference, expected: Answers, tolerance: Tolerance) -> Evidence:
    """Ask a served model for all that it offers, on the rows of a dataset."""
    tokenizer, longest = reference.backend.tokenizer, reference.request.max_new_tokens
    talks = {row: reference.dataset.conversations[row].messages for row in reference.rows}
    prompts = {row: reference.scored_ids[row] for row in reference.rows}
    refusals: list[str] = []

    def answers_to(
        about: str, items: Mapping[int, Item], question: Callable[[Item], Awaitable[Result]]
    ) -> dict[int, Result]:
        """The answer to each row that the server does not refuse."""
        from tqdm import tqdm

        found = {}
        for batch in tqdm(chunks(list(items), ROWS), desc=about, delay=2, leave=False):
            for row, answer in zip(batch, served.ask(question, [items[row] for row in batch]), strict=True):
                if isinstance(answer, RefusedError):
                    refusals.append(answer.problem)
                else:
                    found[row] = answer
        return found

    def chatting(more: Mapping[str, object]) -> Texts:
        settings = {"max_tokens": longest, **more}
        return answers_to(tr("chat"), talks, lambda talk: served.chat_with(talk, settings))

    ids, chat, labels = None, None, None
    answers = Answers(None, None)
    if "prompts" not in served.missing:
        ids = answers_to(tr("prompts"), talks, served.prompt)
    if "texts" not in served.missing:
        texts = answers_to(tr("texts"), prompts, lambda ids: served.greedy(ids, longest))
        answers = Answers(tokens_of(texts, tokenizer), None, texts)
        prompts = {row: prompts[row] for row in texts}
    if "chat" not in served.missing:
        chat = chatting({})
    refused = list(refusals)
    if served.model.engine in (LLAMA_CPP, VLLM):  # they offer both: a refusal is about the model or adapter
        refused += [served.missing[part] for part in ("labels", "texts") if part in served.missing]
    forms = label_forms(reference.dataset)
    if served.gives_labels and forms:
        spellings = tokenise(tokenizer, served.ends, forms)
        room = served.context - max(len(ids) for ids_of_label in spellings.values() for ids in ids_of_label)
        fitting = {row: prompt for row, prompt in prompts.items() if len(prompt) <= room}
        if fitting:
            labels = score_labels(served, fitting, forms)
    return Evidence(
        facts=served.model,
        adapters=reference.candidate.adapters,
        tokenizer=tokenizer,
        expected_ids={row: reference.trained_ids[row] for row in reference.rows},
        served_ids=ids,
        expected=expected,
        served=replace(answers, labels=labels),
        chat=chat,
        ends=reference.ends,
        tolerance=tolerance,
        max_new_tokens=longest,
        refusals=refused,
        answers_of=reference.answers,
        ask_chat=chatting,
    )


def _unchecked(
    pairing: Pairing, reference: Reference, evidence: Evidence, comparisons: Sequence[ProofPart]
) -> Iterator[str]:
    """List the parts that a server lacks or its answers cannot show, with the reasons."""
    served, title, dataset = pairing.served, pairing.title, reference.dataset
    has_labels = bool(label_forms(dataset))
    for part, description in OFFERED.items():
        if part in served.missing and (part != "labels" or has_labels):
            yield _(
                "{description} of {title}: {reason}",
                description=description,
                title=title,
                reason=served.missing[part],
            )
    if served.gives_labels and has_labels:
        answered = reference.rows
        if evidence.served.tokens is not None:
            answered = list(evidence.served.texts)
        unscored = len(answered) - len(evidence.served.labels or ())
        if unscored:
            yield _(
                "{labels} of {title}: {rows} of {dataset} too long for the server's context",
                labels=OFFERED["labels"],
                title=title,
                rows=counted(unscored, "row", "rows"),
                dataset=dataset.name,
            )
    if evidence.refusals:
        refusal = with_texts(evidence.refusals[0], one_line)
        yield _("requests that {title} refused: {refusal}", title=title, refusal=refusal)
    heat = served.model.sampling.get("temperature")
    stops = _("stop words and end tokens of {title}", title=title)
    chats = [one for one in comparisons if one.part == CHATS]
    if not chats:
        yield _("{stops}: no chat answers", stops=stops)
    for chat in chats:
        if chat.differing == 0 and isinstance(heat, (int, float)) and heat > 0:
            yield _(
                "sampling of {title}: it samples at temperature {temperature:g}, so that other tries "
                "may give other answers",
                title=title,
                temperature=heat,
            )
        if chat.runs_on is None:
            longest = reference.request.max_new_tokens
            yield _(
                "{stops}: no answer of the adapter to {dataset} ends within --max-new-tokens {longest}",
                stops=stops,
                dataset=dataset.name,
                longest=longest,
            )
