"""Labels and answers from vLLM in this process: a base and adapters on it, side by side in one engine.

vLLM gets token ids, so that the prompts are the same as with `--backend hf`. For each beginning of a label
it gives the log-probabilities of the tokens that follow in some spelling. They are exact: no spelling is
bounded.
"""

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tuneyard.adapters.kinds.lora import LoraAdapter
from tuneyard.adapters.vllm import RANKS, max_rank
from tuneyard.adapters.weighted import WeightedAdapter
from tuneyard.core.errors import RequestError
from tuneyard.core.files import read_object
from tuneyard.core.installation.packages import missing
from tuneyard.core.prompt import Encode
from tuneyard.eval.backends.load import DTYPES, loading, open_tokenizer
from tuneyard.eval.backends.scorers import (
    EngineRequest,
    Fields,
    Ids,
    Messages,
    Plan,
    Prompts,
    Scorer,
    label_fields,
    next_tokens,
    prompts_too_long,
    sums_of_tokens,
    tokenise,
)

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

AT_ONCE = 256  # rows of a candidate between two writes of the log; vLLM makes its own batches of them
TOKENS_AT_ONCE = 100  # of which one request gives the log-probabilities; vLLM allows 128
LOADED = 8  # adapters in the GPU's memory at a time; vLLM exchanges further ones
VARIABLES = {
    "VLLM_ENABLE_V1_MULTIPROCESSING": "0",  # the order of its batches does not depend on time
    "VLLM_WORKER_MULTIPROC_METHOD": "spawn",  # a fork after a look at CUDA fails
    "VLLM_LOGGING_LEVEL": "ERROR",
}
"""Environment variables that vLLM reads when it is imported. The user's own values stay."""


@dataclass(frozen=True, slots=True)
class EngineAnswer:
    """The text of an answer, or log-probabilities by token."""

    text: str
    logs: Mapping[int, float]


@dataclass(frozen=True, slots=True)
class Engine:
    """A model in vLLM with its tokenizer, its adapters, and the settings that the results record.

    `folder` is the base's. `ends` are the tokens that end an answer, `context` is in tokens. `prepared` has
    answers to requests of the next batches.
    """

    llm: Any
    folder: Path
    tokenizer: "PreTrainedTokenizerBase"
    ends: Sequence[int]
    adapters: list[Path]
    dtype: str
    context: int
    settings: Mapping[str, object]
    device: str = "vllm"
    prepared: dict[EngineRequest, EngineAnswer] = field(default_factory=dict)

    def prepare(self, requests: Iterable[EngineRequest]) -> None:
        """Answer requests of several scorers at once. Their scores then take the answers from here."""
        self.prepared.clear()
        self.prepared.update(self._answer(dict.fromkeys(requests)))

    def answers(self, requests: Sequence[EngineRequest]) -> list[EngineAnswer]:
        """The answer to each request. Equal requests are answered once."""
        rest = [request for request in dict.fromkeys(requests) if request not in self.prepared]
        answers = {**self.prepared, **self._answer(rest)}
        return [answers[request] for request in requests]

    def _answer(self, requests: Iterable[EngineRequest]) -> dict[EngineRequest, EngineAnswer]:
        """Answer requests: of the base in one call, of all adapters in another.

        In one call, vLLM's build for CPUs adds an adapter to the base's rows, too (0.26.0 and 0.32.0).
        """
        of_base: list[EngineRequest] = []
        of_adapters: list[EngineRequest] = []
        for request in requests:
            if request.adapter is None:
                of_base.append(request)
            else:
                of_adapters.append(request)
        return {**self._generate(of_base), **self._generate(of_adapters)}

    def _generate(self, requests: Sequence[EngineRequest]) -> dict[EngineRequest, EngineAnswer]:
        """Answer requests in one call. Beginnings that they share are computed once.

        The cache of the call before is dropped: a resumed run computes what the first one would have.
        """
        if not requests:
            return {}
        prompts = [{"prompt_token_ids": list(request.ids)} for request in requests]
        sampling = [self._sampling(request) for request in requests]
        loras = [self._lora(request.adapter) for request in requests]
        self.llm.reset_prefix_cache()
        with loading(self.folder, "vLLM cannot run it"):
            outputs = self.llm.generate(
                prompts, sampling, lora_request=loras if self.adapters else None, use_tqdm=False
            )
        answers = {}
        for request, output in zip(requests, outputs, strict=True):
            (answer,) = output.outputs
            logs = {}
            if request.tokens:
                for token in request.tokens:
                    logs[token] = answer.logprobs[0][token].logprob
            answers[request] = EngineAnswer(answer.text, logs)
        return answers

    def _sampling(self, request: EngineRequest) -> Any:
        from vllm import SamplingParams

        if request.tokens:
            return SamplingParams(
                temperature=0.0, max_tokens=1, logprob_token_ids=list(request.tokens), detokenize=False
            )
        return SamplingParams(temperature=0.0, max_tokens=request.max_tokens, stop_token_ids=list(self.ends))

    def _lora(self, folder: Path | None) -> Any:
        """The adapter for vLLM, which tells adapters apart by number (above 0) and by name."""
        from vllm.lora.request import LoRARequest

        if folder is None:
            return None
        number = self.adapters.index(folder) + 1
        return LoRARequest(f"{number} {folder.name}", number, str(folder.resolve()))

    def choosing(
        self, adapter: Path | None, prompts: Prompts, spellings: Mapping[str, Sequence[str]]
    ) -> Scorer:
        """Scorer that compares labels after each prompt, each label by all its spellings."""
        columns, tokens = tokenise(self.tokenizer, self.ends, spellings)
        too_long = prompts_too_long(prompts, max(map(len, tokens)), self.context)
        steps = steps_of(tokens)

        def requests_of_row(row: int) -> list[EngineRequest]:
            ids = prompts[row]
            return [EngineRequest((*ids, *begin), adapter, following) for begin, following in steps]

        def requests(batch: Sequence[int]) -> list[EngineRequest]:
            together = []
            for row in batch:
                together += requests_of_row(row)
            return together

        def score(batch: Sequence[int]) -> list[Fields]:
            answers = self.answers(requests(batch))
            fields = []
            for place, row in enumerate(batch):
                logs: dict[tuple[int, ...], float] = {}
                for number, (begin, _) in enumerate(steps):
                    for token, value in answers[place * len(steps) + number].logs.items():
                        logs[(*begin, token)] = value
                fields.append(label_fields(row, columns, sums_of_tokens(tokens, logs)))
            return fields

        return Scorer(_batches(prompts, too_long), too_long, score, requests=requests)


def steps_of(spellings: Sequence[Ids]) -> list[tuple[tuple[int, ...], tuple[int, ...]]]:
    """Beginnings of spellings, each with at most `TOKENS_AT_ONCE` of the tokens that follow it."""
    steps = []
    for begin, following in next_tokens(spellings):
        starts = range(0, len(following), TOKENS_AT_ONCE)
        steps += [(begin, tuple(following[start : start + TOKENS_AT_ONCE])) for start in starts]
    return steps


def _batches(rows: Iterable[int], too_long: Mapping[int, str]) -> list[list[int]]:
    """Large batches of the rows that fit the context, in their order."""
    fitting = [row for row in rows if row not in too_long]
    return [fitting[start : start + AT_ONCE] for start in range(0, len(fitting), AT_ONCE)]


@dataclass(frozen=True, slots=True)
class EngineGenerator:
    """A vLLM model with an adapter (or none) as a Generator."""

    engine: Engine
    encode: Encode
    adapter: Path | None

    def plan(self, talks: Mapping[int, Messages], max_new_tokens: int) -> Plan:
        """Plan large batches of the rows that fit the context. The others are too long."""
        prompts = {row: self.encode(talk) for row, talk in talks.items()}
        too_long = prompts_too_long(prompts, max_new_tokens, self.engine.context)
        return _batches(talks, too_long), too_long

    def generate(self, talks: Sequence[Messages], max_new_tokens: int) -> list[str]:
        """Answer each conversation greedily."""
        requests = [self._request(talk, max_new_tokens) for talk in talks]
        return [answer.text for answer in self.engine.answers(requests)]

    def scorer(self, talks: Mapping[int, Messages], max_new_tokens: int) -> Scorer:
        """Scorer that generates an answer to each conversation."""

        def requests(batch: Sequence[int]) -> list[EngineRequest]:
            return [self._request(talks[row], max_new_tokens) for row in batch]

        def score(batch: Sequence[int]) -> list[Fields]:
            texts = self.generate([talks[row] for row in batch], max_new_tokens)
            return [{"model_output": text} for text in texts]

        return Scorer(*self.plan(talks, max_new_tokens), score, requests=requests)

    def _request(self, talk: Messages, max_new_tokens: int) -> EngineRequest:
        return EngineRequest(tuple(self.encode(talk)), self.adapter, max_tokens=max_new_tokens)


def load_engine(
    folder: Path,
    dtype: str | None,
    candidates: Iterable[Sequence[WeightedAdapter]],
    tensor_parallel: int = 1,
    pipeline_parallel: int = 1,
) -> Engine:
    """Load a base with the adapters of the candidates (default: fp32 on CPU, bf16 on GPU).

    `RequestError` if vLLM is absent, refuses an adapter, or cannot divide the model among the GPUs.
    """
    adapters = _plain_adapters(candidates)
    for name, value in VARIABLES.items():
        os.environ.setdefault(name, value)
    try:
        import vllm
    except ImportError as error:
        raise RequestError(f"--backend vllm: {missing('vllm')}; or leave --backend out") from error
    import torch

    has_gpu = torch.cuda.is_available()
    workers = tensor_parallel * pipeline_parallel
    if has_gpu:
        check_parallel(folder, tensor_parallel, pipeline_parallel, torch.cuda.device_count(), "GPUs")
    else:
        cores = sorted(os.sched_getaffinity(0))
        check_parallel(folder, tensor_parallel, pipeline_parallel, len(cores), "CPU cores")
        if workers > 1:
            os.environ.setdefault("VLLM_CPU_OMP_THREADS_BIND", _cores_by_worker(cores, workers))
    _check_patterns(adapters, vllm.__version__)
    options: dict[str, object] = {}
    if adapters:
        options = {
            "enable_lora": True,
            "max_loras": min(len(adapters), LOADED),
            "max_lora_rank": _rank_limit(adapters),
        }
    dtype = dtype or ("bf16" if has_gpu else "fp32")
    with loading(folder, "vLLM cannot load it"):
        llm = vllm.LLM(
            model=str(folder),
            dtype=DTYPES[dtype],
            seed=0,
            generation_config="vllm",
            enable_prefix_caching=True,
            tensor_parallel_size=tensor_parallel,
            pipeline_parallel_size=pipeline_parallel,
            enforce_eager=not has_gpu,  # compiling for a CPU takes a minute
            **options,
        )
    _, tokenizer, ends = open_tokenizer(str(folder))
    settings = {
        "vllm": vllm.__version__,
        "tensor_parallel": tensor_parallel,
        "pipeline_parallel": pipeline_parallel,
    }
    context = llm.llm_engine.model_config.max_model_len
    folders = [adapter.folder for adapter in adapters]
    return Engine(llm, folder, tokenizer, ends, folders, dtype, context, settings)


def _plain_adapters(candidates: Iterable[Sequence[WeightedAdapter]]) -> list[LoraAdapter]:
    """The candidates' adapters, each once. `RequestError` for one that vLLM does not serve as it is."""
    adapters: dict[Path, LoraAdapter] = {}
    for parts in candidates:
        for part in parts:
            reason = _refusal(part, len(parts))
            if reason:
                raise RequestError(
                    f"adapter {part.adapter.folder}: {reason}: merge or fuse it first (tuneyard adapter), or "
                    "leave --backend out"
                )
            adapters[part.adapter.folder] = part.adapter
    return list(adapters.values())


def _refusal(part: WeightedAdapter, parts: int) -> str | None:
    """Reason for which vLLM cannot serve one of the candidate's `parts` adapters, None if it can."""
    if part.weight != 1 or parts > 1 or part.adapter.full_tensors:
        return "vLLM takes no weights, no modules_to_save and no bias"
    return None


def _rank_limit(adapters: Sequence[LoraAdapter]) -> int:
    """The largest rank that vLLM must allow. `RequestError` if it allows none so large."""
    ranks: list[int] = []
    for adapter in adapters:
        ranks += [module.rank for module in adapter.modules.values()]
        ranks.append(adapter.config.rank)  # vLLM reads it, also where a pattern leaves it to no module
    limit = max_rank(max(ranks))
    if limit is None:
        raise RequestError(
            f"an adapter of rank {max(ranks)}: vLLM takes {RANKS[-1]} at most; merge with --method svd"
        )
    return limit


def _check_patterns(adapters: Sequence[LoraAdapter], release: str) -> None:
    """`RequestError` for ranks or alphas by module if this vLLM ignores them, as 0.26 does."""
    with_patterns = [adapter for adapter in adapters if adapter.config.ranks or adapter.config.alphas]
    if not with_patterns:
        return
    from vllm.lora.peft_helper import PEFTHelper

    if "alpha_pattern" not in PEFTHelper.__dataclass_fields__:
        raise RequestError(
            f"adapter {with_patterns[0].folder}: vLLM {release} ignores rank_pattern and alpha_pattern: fuse "
            "it first (tuneyard adapter fuse), take a newer vLLM, or leave --backend out"
        )


def _cores_by_worker(cores: Sequence[int], workers: int) -> str:
    """An equal number of cores for each worker, as vLLM's build for CPUs reads them: `0,1|2,3`."""
    count = len(cores) // workers
    names = [str(core) for core in cores]
    return "|".join(",".join(names[worker * count :][:count]) for worker in range(workers))


def check_parallel(folder: Path, tensor: int, pipeline: int, devices: int, kind: str) -> None:
    """`RequestError` unless there are devices enough and the model's heads and layers can be divided so.

    `kind` names the devices, such as `GPUs`.
    """
    workers = tensor * pipeline
    if workers == 1:
        return
    if workers > devices:
        raise RequestError(
            f"--tensor-parallel {tensor} --pipeline-parallel {pipeline}: expected {workers} {kind}, this "
            f"machine shows {devices}"
        )
    whole = read_object(folder / "config.json")
    config = whole.get("text_config")
    if not isinstance(config, dict):
        config = whole
    heads, layers = config.get("num_attention_heads"), config.get("num_hidden_layers")
    if isinstance(heads, int) and heads % tensor:
        raise RequestError(f"--tensor-parallel {tensor}: it must divide the model's {heads} attention heads")
    if isinstance(layers, int) and layers < pipeline:
        raise RequestError(f"--pipeline-parallel {pipeline}: the model has {layers} layers")
