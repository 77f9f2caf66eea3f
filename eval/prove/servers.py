"""Compare what servers offer with the adapters here: prompts, labels, greedy texts and chat answers."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tuneyard.adapters.weighted import WeightedAdapter
from tuneyard.core.errors import RequestError, counted, one_line
from tuneyard.eval.backends.connection import Connection, RefusedError
from tuneyard.eval.backends.endpoint import OfferedModel, ServerReport, json_object, read_report
from tuneyard.eval.backends.scorers import Fields, Ids, Prompts, score_all, tokenise
from tuneyard.eval.backends.served import LLAMA_CPP, OWNER_VLLM, VLLM, ServedModel, open_served
from tuneyard.eval.prove.answers import Reference, generate_rows, label_forms, score_labels, tokens_of
from tuneyard.eval.prove.diagnosis import diagnose
from tuneyard.eval.prove.evidence import Evidence
from tuneyard.eval.prove.fixes import NOT_LOADED, above_max_lora_rank
from tuneyard.eval.prove.proof import (
    AnswerProof,
    Answers,
    ChatProof,
    FoundCause,
    Labels,
    PromptProof,
    Tolerance,
    prove_answers,
    prove_chat,
    prove_prompts,
)
from tuneyard.eval.scoring.candidates import Candidate, Opened
from tuneyard.eval.scoring.task import Job

if TYPE_CHECKING:
    from tuneyard.eval.backends.generate import Generated

AGAIN = "nothing is written; run the command again"
BASE_ALONE = ""  # its name among those of --adapter
OFFERED = {
    "prompts": "prompts",
    "labels": "labels' log-probabilities",
    "texts": "greedy texts after our ids",
    "chat": "chat answers",
}
"""What servers are asked for, by the names in `ServedModel.missing`."""


@dataclass(frozen=True, slots=True)
class Pairing:
    """A served model and the candidate that it should answer like. `title` is its name in the tables."""

    served: ServedModel
    title: str
    candidate: Candidate


@dataclass(slots=True)
class ServerProofs:
    """The comparisons of servers, and what could not be compared."""

    prompts: list[PromptProof] = field(default_factory=list)
    answers: list[AnswerProof] = field(default_factory=list)
    chats: list[ChatProof] = field(default_factory=list)
    causes: list[FoundCause] = field(default_factory=list)
    unchecked: list[str] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Asked:
    """What a server answers on a dataset. A part is None if the server does not offer it.

    `refusals` are its reasons for rows that it did not answer.
    """

    ids: Mapping[int, Ids] | None
    prompt_texts: Mapping[int, str] | None
    answers: Answers
    chat: "Mapping[int, Generated] | None"
    refusals: Sequence[str]


def connect(url: str, served_name: str | None, timeout: float, opened: Opened, reference: str) -> ServedModel:
    """Open the server's model: `served_name`, otherwise the first adapter's name if the server has it.

    `reference` is the base's name, for a server of one model under any name.
    """
    report = read_report(Connection(url, timeout, AGAIN))
    name, is_exact = served_name or reference, served_name is not None
    if served_name is None:
        report = _let_vllm_load(report, opened.candidates)
        for candidate in opened.candidates:
            same = [
                model for model in report.names if candidate.name in OfferedModel(model, None, False).names
            ]
            if same:
                name, is_exact = same[0], True
                if candidate.name in same:
                    name = candidate.name
                break
    model = opened.backend.local
    return open_served(
        report, name, is_exact, model.tokenizer, model.net.generation_config.eos_token_id or []
    )


def _let_vllm_load(report: ServerReport, candidates: Sequence[Candidate]) -> ServerReport:
    """Ask vLLM for adapters that it does not list, and read the report again if it has loaded one.

    vLLM's LoRA resolvers load an adapter when it is first asked for. `RequestError` if one cannot be loaded.
    """
    connection = report.connection
    if all(entry.get("owned_by") != OWNER_VLLM for entry in report.models):
        return report
    has_loaded = False
    for candidate in candidates:
        offers = [OfferedModel(name, None, False) for name in report.names]
        if not candidate.parts or any(candidate.name in offer.names for offer in offers):
            continue
        body = {"model": candidate.name, "prompt": [0], "max_tokens": 1}
        address = f"{connection.url}/completions"
        try:
            about = f"adapter {candidate.name}"
            ask = partial(connection.request, address=address, body=body, read=json_object, about=about)
            connection.once(ask)
        except RefusedError as error:
            reason = above_max_lora_rank(str(error), candidate.parts)
            if reason or error.is_of_all_requests or NOT_LOADED.search(str(error)):
                raise RequestError(
                    f"{connection.url}: adapter {candidate.name}: {reason or error}"
                ) from error
        else:
            has_loaded = True
    return read_report(connection, asks_props=False) if has_loaded else report


def pair_models(served: ServedModel, candidates: Sequence[Candidate]) -> tuple[list[Pairing], list[str]]:
    """Pair each model and adapter of a server with the candidate of its name; the others are not checked.

    The model that a server offers next to adapters is paired with the base. `RequestError` if nothing can be
    paired.
    """
    url, pairings, unchecked = served.facts.url, [], []
    models = []
    for offer in served.facts.offers:
        if not offer.is_adapter and offer.name == served.name:
            continue
        candidate = _same_name(offer, candidates)
        title = one_line(f"{offer.name} at {url}")
        if candidate is not None:
            pairings.append(Pairing(_ask_for(served, offer), title, candidate))
        elif offer.is_adapter:
            unchecked.append(f"adapter {offer.name} of {url}: no --adapter has this name")
        else:
            models.append(offer)
    for offer in models:
        title = one_line(f"{offer.name} at {url}")
        if served.facts.engine == VLLM and pairings:
            pairings.append(Pairing(_ask_for(served, offer), title, base_alone(candidates)))
        else:
            unchecked.append(f"model {offer.name} of {url}: no --adapter has this name")
    default, reason = _pair_default(served, candidates, bool(pairings))
    if default:
        pairings.insert(0, default)
    elif reason:
        unchecked.append(reason)
    if not pairings:
        offers = ", ".join(offer.name for offer in served.facts.offers)
        names = ", ".join(candidate.name for candidate in candidates)
        raise RequestError(
            f"{url} offers {offers}, and --adapter names {names}: name an adapter as the server does, "
            "--adapter NAME=DIR"
        )
    return pairings, unchecked


def base_alone(candidates: Sequence[Candidate]) -> Candidate:
    """The base without an adapter, prompted like the first candidate."""
    return replace(candidates[0], name=BASE_ALONE, parts=())


def _same_name(offer: OfferedModel, candidates: Sequence[Candidate]) -> Candidate | None:
    """The candidate with the best of the offer's names."""
    for name in offer.names:
        for candidate in candidates:
            if candidate.name == name:
                return candidate
    return None


def _ask_for(served: ServedModel, offer: OfferedModel) -> ServedModel:
    """The server's model or adapter of this name. llama.cpp's only applied adapter is its plain answer."""
    if offer.name == served.name:
        return served
    if offer.number is None:
        return open_served(served.report, offer.name, True, served.tokenizer, served.ends)
    if is_applied_alone(offer, served):
        return served
    return served.with_adapter(offer)


def is_applied_alone(adapter: OfferedModel, served: ServedModel) -> bool:
    """True if llama.cpp applies this adapter, and no other one, to requests that name none."""
    applied = [offer for offer in served.facts.adapters if offer.scale]
    return applied == [adapter] and adapter.scale == 1.0


def _pair_default(
    served: ServedModel, candidates: Sequence[Candidate], has_others: bool
) -> tuple[Pairing | None, str]:
    """Pair what the server answers to requests that name no adapter, or say why it is not compared."""
    facts = served.facts
    default = [offer for offer in facts.offers if not offer.is_adapter and offer.name == served.name]
    if facts.offers and not default:  # an adapter of vLLM, which is paired by its name
        return None, ""
    name = Path(served.name).name
    title = one_line(f"{name} at {facts.url}")
    same_name = _same_name(OfferedModel(served.name, None, False), candidates)
    if facts.engine == LLAMA_CPP and facts.adapters:
        if any(
            is_applied_alone(adapter, served) and _same_name(adapter, candidates)
            for adapter in facts.adapters
        ):
            return None, ""
        title += " without an adapter in the request"
        scales = ", ".join(f"{adapter.name} {adapter.scale:g}" for adapter in facts.adapters)
        reason = f"{title} (it applies {scales}): several --adapter, none of this name"
    else:
        reason = f"model {name} of {facts.url}: no --adapter has this name"
    if same_name:
        return Pairing(served, title, same_name), ""
    if len(candidates) == 1 and not (has_others and facts.engine != LLAMA_CPP):
        return Pairing(served, title, candidates[0]), ""
    has_base = facts.engine == VLLM or (facts.engine == LLAMA_CPP and facts.adapters)
    if has_others and has_base and not any(adapter.scale for adapter in facts.adapters):
        return Pairing(served, title, base_alone(candidates)), ""
    return None, reason


def prove_servers(
    servers: Sequence[ServedModel],
    references: Mapping[str, Sequence[Reference]],
    candidates: Sequence[Candidate],
    tolerance: Tolerance,
) -> ServerProofs:
    """Compare every model and adapter of the servers on every dataset. `references` are by candidate."""
    proofs = ServerProofs()
    pairings = []
    for served in servers:
        of_server, unchecked = pair_models(served, candidates)
        pairings += of_server
        proofs.unchecked += unchecked
    paired_names = {pairing.candidate.name for pairing in pairings}
    for candidate in candidates:
        if servers and candidate.name not in paired_names:
            proofs.unchecked.append(f"adapter {candidate.name}: no server offers it")
    first = candidates[0].name
    base = base_alone(candidates)
    of_base = [
        replace(reference, job=replace(reference.job, candidate=base)) for reference in references[first]
    ]
    for name, references_of_name in {**references, BASE_ALONE: of_base}.items():
        if name not in paired_names:
            continue
        for reference in references_of_name:
            expected = reference.answers()
            for pairing in pairings:
                if pairing.candidate.name != name:
                    continue
                PairingCheck(pairing, reference, expected, tolerance).prove(proofs)
    return proofs


@dataclass(frozen=True, slots=True)
class PairingCheck:
    """One served model next to the adapter's `expected` answers on a dataset."""

    pairing: Pairing
    reference: Reference
    expected: Answers
    tolerance: Tolerance

    def prove(self, proofs: ServerProofs) -> None:
        """Compare everything that the server offers, and name the causes of differences."""
        title, job = self.pairing.title, self.reference.job
        asked = _ask(self.pairing.served, self.reference)
        prompts = self._prompts(title, asked)
        answers = None
        if asked.answers.labels is not None or asked.answers.tokens is not None:
            decode = job.backend.tokenizer.decode
            answers = prove_answers(title, job.dataset.name, self.expected, asked.answers, decode)
            proofs.answers.append(answers)
        chat = self._chat(title, asked)
        proofs.unchecked += _unchecked(self.pairing, self.reference, asked, chat)
        differs = answers is not None and not self.tolerance.allows(answers)
        differs |= self._add(proofs, prompts, chat)
        if differs:
            self._diagnose(proofs, title, asked)

    def _prompts(self, title: str, asked: Asked) -> PromptProof | None:
        """Compare the server's prompts with training's. None if it does not show them."""
        if asked.ids is None:
            return None
        job = self.reference.job
        trained = {row: self.reference.trained_ids[row] for row in self.reference.rows}
        return prove_prompts(title, job.dataset.name, trained, asked.ids, job.backend.tokenizer.decode)

    def _chat(self, title: str, asked: Asked) -> ChatProof | None:
        """Compare the server's chat answers with its greedy ones. None if it gives none."""
        if asked.chat is None or self.expected.texts is None:
            return None
        job = self.reference.job
        decode = job.backend.tokenizer.decode
        encode = _encoder(job)
        return prove_chat(title, job.dataset.name, self.expected, asked.answers, asked.chat, encode, decode)

    def _add(self, proofs: ServerProofs, prompts: PromptProof | None, chat: ChatProof | None) -> bool:
        """Add comparisons to the results. True if one is beyond the tolerance."""
        differs = False
        if prompts is not None:
            proofs.prompts.append(prompts)
            differs = not prompts.equal
        if chat is not None:
            proofs.chats.append(chat)
            differs = differs or not self.tolerance.allows_chat(chat)
        return differs

    def _diagnose(self, proofs: ServerProofs, title: str, asked: Asked) -> None:
        """Name the causes of differences."""
        reference, job, served = self.reference, self.reference.job, self.pairing.served

        def labels_of(parts: Sequence[WeightedAdapter]) -> Labels | None:
            job.backend.apply(tuple(parts))
            return score_labels(job, reference.rows)

        def texts_of(parts: Sequence[WeightedAdapter]) -> "Mapping[int, Generated]":
            job.backend.apply(tuple(parts))
            return generate_rows(job, reference.rows, reference.ends)

        def ask_chat(more: Mapping[str, object]) -> "Mapping[int, Generated]":
            talks = job.messages(reference.rows)
            return _part(
                "answer", score_all(served.chatting(talks, job.request.max_new_tokens, more), "chat")
            )

        evidence = Evidence(
            facts=served.facts,
            model=served.name,
            dataset=job.dataset.name,
            parts=job.candidate.parts,
            tokenizer=job.backend.tokenizer,
            expected_ids={row: reference.trained_ids[row] for row in reference.rows},
            served_ids=asked.ids,
            expected=self.expected,
            served=asked.answers,
            chat=asked.chat,
            ends=reference.ends,
            tolerance=self.tolerance,
            labels_of=labels_of,
            texts_of=texts_of,
            max_new_tokens=job.request.max_new_tokens,
            refusals=asked.refusals,
            ask_chat=ask_chat if asked.chat is not None else None,
        )
        for cause in diagnose(evidence):
            proofs.causes.append(FoundCause(title, job.dataset.name, cause.name, cause.sentence))


def _ask(served: ServedModel, reference: Reference) -> Asked:
    """Ask a served model for all that it offers, on the rows of a dataset."""
    job = reference.job
    talks, longest = job.messages(reference.rows), job.request.max_new_tokens
    prompts = {row: reference.scored_ids[row] for row in reference.rows}
    answers = {}
    if "prompts" not in served.missing:
        answers["prompts"] = score_all(served.prompting(talks), "prompts")
    if "texts" not in served.missing:
        answers["texts"] = score_all(served.answering(prompts, longest), "texts")
    if "chat" not in served.missing:
        answers["chat"] = score_all(served.chatting(talks, longest), "chat")
    refusals = _refusals(list(answers.values()))
    if served.facts.engine in (LLAMA_CPP, VLLM):  # they offer both: a refusal is about the model or adapter
        refusals += [served.missing[part] for part in ("labels", "texts") if part in served.missing]
    ids, prompt_texts, tokens, texts, chat = None, None, None, None, None
    if "prompts" in answers:
        served_prompts = _part("prompt", answers["prompts"])
        ids = {row: prompt.ids for row, prompt in served_prompts.items()}
        prompt_texts = {row: prompt.text for row, prompt in served_prompts.items()}
    if "texts" in answers:
        texts = _part("answer", answers["texts"])
        tokens = tokens_of(texts, job.backend.tokenizer)
        prompts = {row: prompts[row] for row in texts}
    if "chat" in answers:
        chat = _part("answer", answers["chat"])
    return Asked(ids, prompt_texts, Answers(tokens, _ask_labels(served, job, prompts), texts), chat, refusals)


def _ask_labels(served: ServedModel, job: Job, prompts: Prompts) -> Labels | None:
    """Ask for the log-probabilities of the labels after prompts that fit the server's context."""
    forms = label_forms(job.dataset)
    if served.choice is None or forms is None:
        return None
    _, spellings = tokenise(job.backend.tokenizer, served.ends, forms)
    longest = max(map(len, spellings))
    fitting = {row: ids for row, ids in prompts.items() if len(ids) + longest <= served.choice.context}
    if not fitting:
        return None
    return _part("choices", score_all(served.labels(fitting, forms), "labels"))


def _refusals(answers: Sequence[Mapping[int, Fields]]) -> list[str]:
    """The server's reasons for rows that it refused."""
    refusals = []
    for fields_by_row in answers:
        refusals += [fields["refusal"] for fields in fields_by_row.values() if "refusal" in fields]
    return refusals


def _part(name: str, fields_by_row: Mapping[int, Fields]) -> dict[int, Any]:
    """A field of each row that has it."""
    return {row: fields[name] for row, fields in fields_by_row.items() if name in fields}


def _encoder(job: Job) -> Callable[[str], Ids]:
    """The tokenizer of a job as a function from text to ids."""

    def encode(text: str) -> Ids:
        return list(job.backend.tokenizer(text, add_special_tokens=False)["input_ids"])

    return encode


def _unchecked(pairing: Pairing, reference: Reference, asked: Asked, chat: ChatProof | None) -> list[str]:
    """List what a server does not offer, or what its answers cannot show, with the reasons."""
    served, job = pairing.served, reference.job
    unchecked = []
    for part, description in OFFERED.items():
        if part in served.missing and (part != "labels" or label_forms(job.dataset)):
            unchecked.append(f"{description} of {pairing.title}: {served.missing[part]}")
    if served.choice is not None and label_forms(job.dataset):
        answered = asked.answers.tokens
        if answered is None:
            answered = dict.fromkeys(reference.rows, ())
        unscored = len(answered.keys() - (asked.answers.labels or {}).keys())
        if unscored:
            unchecked.append(
                f"{OFFERED['labels']} of {pairing.title}: {counted(unscored, 'row')} of {job.dataset.name} "
                "too long for the server's context"
            )
    heat = served.facts.sampling.get("temperature")
    if chat is not None and chat.differing == 0 and isinstance(heat, (int, float)) and heat > 0:
        unchecked.append(
            f"sampling of {pairing.title}: it samples at temperature {heat:g}, so that other tries may give "
            "other answers"
        )
    stops = f"stop words and end tokens of {pairing.title}"
    if chat is None:
        unchecked.append(f"{stops}: no chat answers")
    elif chat.runs_on is None:
        longest = job.request.max_new_tokens
        unchecked.append(
            f"{stops}: no answer of the adapter to {job.dataset.name} ends within --max-new-tokens {longest}"
        )
    return unchecked
