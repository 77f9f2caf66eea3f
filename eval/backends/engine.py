"""Generate answers with vLLM, with or without an adapter. Install it with pip install -e ".[vllm]".

vLLM gets token ids, so that the prompts are the same as with `--backend hf`. It serves plain adapters one at
a time: weights other than 1, modules_to_save and bias are refused (fuse them).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tuneyard.adapters.vllm import RANKS, max_rank
from tuneyard.adapters.weighted import WeightedAdapter
from tuneyard.core.errors import RequestError
from tuneyard.core.packages import missing
from tuneyard.core.prompt import Encode
from tuneyard.eval.backends.load import DTYPES, loading
from tuneyard.eval.backends.scorers import Messages, Plan, prompts_too_long

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

AT_ONCE = 256  # rows between two writes of the log; vLLM makes its own batches of them


@dataclass(frozen=True, slots=True)
class Engine:
    """A model in vLLM with its tokenizer, its adapters, and the settings that the results record."""

    llm: Any
    tokenizer: "PreTrainedTokenizerBase"
    adapters: list[Path]
    dtype: str
    context: int
    device: str = "vllm"


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
        rows = [row for row in talks if row not in too_long]
        return [rows[i : i + AT_ONCE] for i in range(0, len(rows), AT_ONCE)], too_long

    def generate(self, talks: Sequence[Messages], max_new_tokens: int) -> list[str]:
        """Answer each conversation greedily."""
        from vllm import SamplingParams
        from vllm.lora.request import LoRARequest

        folder = self.adapter
        lora = None
        if folder:  # vLLM tells adapters apart by a number above 0
            lora = LoRARequest(folder.name, self.engine.adapters.index(folder) + 1, str(folder.resolve()))
        prompts = [{"prompt_token_ids": self.encode(talk)} for talk in talks]
        sampling = SamplingParams(temperature=0.0, max_tokens=max_new_tokens)
        outputs = self.engine.llm.generate(prompts, sampling, lora_request=lora, use_tqdm=False)
        return [output.outputs[0].text for output in outputs]


def load_engine(folder: Path, dtype: str | None, parts: Sequence[WeightedAdapter]) -> Engine:
    """Load a base with its adapters (default: bf16); `RequestError` if vLLM is absent or refuses one."""
    for part in parts:
        if part.weight != 1 or part.adapter.full_tensors:
            raise RequestError(
                f"adapter {part.adapter.folder}: vLLM takes no weights, no modules_to_save and no bias: "
                "merge or fuse it first (tuneyard adapter), or leave --backend out"
            )
    try:
        from vllm import LLM
    except ImportError as error:
        raise RequestError(f"--backend vllm: {missing('vllm')}; or leave --backend out") from error
    from transformers import AutoTokenizer

    dtype = dtype or "bf16"
    ranks: list[int] = []
    for part in parts:
        ranks += [module.rank for module in part.adapter.layout.values()]
    fitting = max_rank(max(ranks, default=0))
    if fitting is None:
        raise RequestError(
            f"an adapter of rank {max(ranks)}: vLLM takes {RANKS[-1]} at most; merge with --method svd"
        )
    lora = {"enable_lora": True, "max_loras": 1, "max_lora_rank": fitting} if ranks else {}
    with loading(folder, "vLLM cannot load it"):
        llm = LLM(model=str(folder), dtype=DTYPES[dtype], seed=0, generation_config="vllm", **lora)
    context = llm.llm_engine.model_config.max_model_len
    adapters = [part.adapter.folder for part in parts]
    tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
    return Engine(llm, tokenizer, adapters, dtype, context)
