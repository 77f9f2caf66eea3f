"""The backend of vLLM in this process: a base and adapters on it in one engine.

vLLM gets token ids, so that the prompts are the same as with `--backend hf`. For each beginning of a label
it gives the log-probabilities of the tokens that follow in some spelling. They are exact: no spelling is
bounded.
"""

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tuneyard.adapters.model.lora import VLLM_RANKS, LoraAdapter, vllm_rank
from tuneyard.adapters.model.weighted import WeightedAdapter
from tuneyard.core.errors import RequestError
from tuneyard.core.files import read_object
from tuneyard.core.installation.checkout import SAFE_PATH
from tuneyard.core.installation.packages import missing
from tuneyard.core.language.message import _
from tuneyard.core.llamafactory.prompt import Encode, Messages
from tuneyard.core.weights.dtypes import DTYPES
from tuneyard.eval.models import NO_LIMIT, Backend, loading
from tuneyard.eval.models.batch_plan import Batches, Ids, Images, Logs, Prompts, Reading, chunks, next_tokens
from tuneyard.eval.models.generate import decode_answer
from tuneyard.eval.models.load import open_tokenizer

AT_ONCE = 256  # rows of a candidate between two writes of the log; vLLM makes its own batches of them
TOKENS_AT_ONCE = 100  # of which one request gives the log-probabilities; vLLM allows 128
LOADED = 8  # adapters in the GPU's memory at a time; vLLM exchanges further ones
VARIABLES = {
    "VLLM_ENABLE_V1_MULTIPROCESSING": "0",  # the order of its batches does not depend on time
    "VLLM_WORKER_MULTIPROC_METHOD": "spawn",  # a fork after a look at CUDA fails
    "VLLM_LOGGING_LEVEL": "ERROR",
    SAFE_PATH: "1",
}
"""Environment variables that vLLM reads when it is imported, or its processes. The user's own values stay."""


@dataclass(eq=False)
class Engine(Backend):
    """A model in vLLM with its tokenizer, its adapters, and the settings that the results record.

    `adapter` is the one that is applied.
    """

    llm: Any
    adapters: list[Path]
    adapter: Path | None = None

    def apply(self, weighted_adapters: Sequence[WeightedAdapter]) -> None:
        """Send the adapter with each prompt from now on. `load_engine` refuses several at a time."""
        self.adapter = weighted_adapters[0].adapter.folder if weighted_adapters else None

    def answers(self, prompts: Sequence[Ids], sampling: Sequence[Any]) -> list[Any]:
        """vLLM's answer to each prompt with its SamplingParams, in one call.

        The cache of the call before is dropped: a resumed run computes what the first one would have. A call
        is for the base or for one adapter: in one call, vLLM's build for CPUs adds an adapter to the base's
        rows, too (0.26.0 and 0.32.0).
        """
        if not prompts:
            return []
        token_prompts = [{"prompt_token_ids": list(ids)} for ids in prompts]
        loras = [self._lora()] * len(prompts) if self.adapters else None
        self.llm.reset_prefix_cache()
        with loading(self.folder, _("vLLM cannot run it")):
            outputs = self.llm.generate(token_prompts, sampling, lora_request=loras, use_tqdm=False)
        return [output.outputs[0] for output in outputs]

    def _lora(self) -> Any:
        """The adapter for vLLM, which tells adapters apart by number (above 0) and by name."""
        from vllm.lora.request import LoRARequest

        if self.adapter is None:
            return None
        number = self.adapters.index(self.adapter) + 1
        return LoRARequest(f"{number} {self.adapter.name}", number, str(self.adapter.resolve()))

    def reading(
        self,
        prompts: Prompts,
        spellings: Sequence[Ids],
        images: Images,  # noqa: ARG002  open_models refuses images
    ) -> Reading:
        """Plan large batches, and give the log-probabilities of the spellings' tokens."""
        from vllm import SamplingParams

        steps = steps_of(spellings)
        sampling = []
        for _begin, following in steps:
            sampling.append(
                SamplingParams(
                    temperature=0.0, max_tokens=1, logprob_token_ids=list(following), detokenize=False
                )
            )

        def read(batch: Sequence[int]) -> list[Logs]:
            asked = [[*prompts[row], *begin] for row in batch for begin, _following in steps]
            answers = iter(self.answers(asked, sampling * len(batch)))
            by_row: list[Logs] = []
            for _row in batch:
                logs: Logs = {}
                for begin, following in steps:
                    listed = next(answers).logprobs[0]
                    logs.update({(*begin, token): listed[token].logprob for token in following})
                by_row.append(logs)
            return by_row

        return chunks(list(prompts), AT_ONCE), read

    def batches(self, lengths: Mapping[int, int]) -> Batches:
        """Large batches in the data's order."""
        return chunks(list(lengths), AT_ONCE)

    def chat(self, talks: Mapping[int, Messages], encode: Encode, longest: int) -> list[str]:
        """Answer each conversation, greedily or as `sampling` says."""
        from vllm import SamplingParams

        settings = {"temperature": 0.0, **(self.sampling if self.draws else {})}
        sampling = SamplingParams(
            max_tokens=longest,
            stop_token_ids=list(self.ends),
            seed=self.seed,
            detokenize=False,  # vLLM has the base's tokenizer
            **settings,
        )
        answers = self.answers([encode(talk) for talk in talks.values()], [sampling] * len(talks))
        return [self._text(answer.token_ids) for answer in answers]

    def _text(self, tokens: Sequence[int]) -> str:
        """The text of an answer, without the token that ends it."""
        kept = list(tokens)
        if kept and kept[-1] in self.ends:
            kept.pop()
        return decode_answer(self, kept)


def steps_of(spellings: Sequence[Ids]) -> list[tuple[tuple[int, ...], tuple[int, ...]]]:
    """Beginnings of spellings, each with at most `TOKENS_AT_ONCE` of the tokens that follow it."""
    steps = []
    for begin, following in next_tokens(spellings):
        steps += [(begin, tuple(tokens)) for tokens in chunks(following, TOKENS_AT_ONCE)]
    return steps


def load_engine(
    folder: Path,
    dtype: str | None,
    candidates: Iterable[Sequence[WeightedAdapter]],
    tensor_parallel: int,
    pipeline_parallel: int,
) -> Engine:
    """Load a base with the adapters of the candidates (default: fp32 on CPU, bf16 on GPU).

    `RequestError` if vLLM is absent or refuses an adapter, `ContentError` if it cannot load the model (on too
    few GPUs, say).
    """
    adapters = _plain_adapters(candidates)
    for name, value in VARIABLES.items():
        os.environ.setdefault(name, value)
    try:
        import vllm
    except ImportError as error:
        raise RequestError(
            _("--backend vllm: {reason}; or leave --backend out", reason=missing("vllm"))
        ) from error
    import torch

    gpus = torch.cuda.device_count()
    _check_patterns(adapters, vllm.__version__)
    options: dict[str, object] = {}
    if adapters:
        options = {
            "enable_lora": True,
            "max_loras": min(len(adapters), LOADED),
            "max_lora_rank": _rank_limit(adapters),
        }
    dtype = dtype or ("bf16" if gpus else "fp32")
    with loading(folder, _("vLLM cannot load it")):
        llm = vllm.LLM(
            model=str(folder),
            dtype=DTYPES[dtype].torch,
            seed=0,
            generation_config="vllm",
            enable_prefix_caching=True,
            tensor_parallel_size=tensor_parallel,
            pipeline_parallel_size=pipeline_parallel,
            enforce_eager=not gpus,  # compiling for a CPU takes a minute
            **options,
        )
    tokenizer, ends = open_tokenizer(str(folder))
    settings = {
        "vllm": vllm.__version__,
        "tensor_parallel": tensor_parallel,
        "pipeline_parallel": pipeline_parallel,
    }
    return Engine(
        llm,
        [adapter.folder for adapter in adapters],
        folder=folder,
        tokenizer=tokenizer,
        ends=ends,
        context=llm.llm_engine.model_config.max_model_len,
        vocabulary=_vocabulary(folder),
        dtype=dtype,
        device="vllm",
        settings=settings,
    )


def _vocabulary(folder: Path) -> int:
    """The number of tokens that a model embeds: vLLM refuses a request that names one beyond them."""
    config = read_object(folder / "config.json")
    for fields in (config, config.get("text_config")):
        size = fields.get("vocab_size") if isinstance(fields, dict) else None
        if isinstance(size, int):
            return size
    return NO_LIMIT


def _plain_adapters(candidates: Iterable[Sequence[WeightedAdapter]]) -> list[LoraAdapter]:
    """The candidates' adapters, each once. `RequestError` for one that vLLM cannot serve unchanged."""
    adapters: dict[Path, LoraAdapter] = {}
    for weighted_adapters in candidates:
        for weighted in weighted_adapters:
            if weighted.weight != 1 or len(weighted_adapters) > 1 or weighted.adapter.full_tensors:
                raise RequestError(
                    _(
                        "adapter {folder}: vLLM takes no weights, no modules_to_save and no bias: merge or "
                        "fuse it first (tuneyard adapter), or leave --backend out",
                        folder=weighted.adapter.folder,
                    )
                )
            adapters[weighted.adapter.folder] = weighted.adapter
    return list(adapters.values())


def _rank_limit(adapters: Sequence[LoraAdapter]) -> int:
    """The largest rank that vLLM must allow. `RequestError` if it allows none so large."""
    # vLLM reads the rank in the config, also where a pattern leaves it to no module
    largest = max(max(adapter.largest_rank, adapter.config.rank) for adapter in adapters)
    limit = vllm_rank(largest)
    if limit is None:
        raise RequestError(
            _(
                "an adapter of rank {rank}: vLLM takes {most} at most; merge with --method svd",
                rank=largest,
                most=VLLM_RANKS[-1],
            )
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
            _(
                "adapter {folder}: vLLM {release} ignores rank_pattern and alpha_pattern: fuse it "
                "first (tuneyard adapter fuse), take a newer vLLM, or leave --backend out",
                folder=with_patterns[0].folder,
                release=release,
            )
        )
