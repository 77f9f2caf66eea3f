"""vLLM in this process, whose own batches are used."""

from tuneyard.eval.models import Backend
from tuneyard.eval.models.backends import BackendKind, ModelToLoad


def load(model: ModelToLoad) -> Backend:
    """An engine with the base and all adapters."""
    from tuneyard.eval.models.engine import load_engine

    engine = load_engine(
        model.folder, model.dtype, model.candidates, model.tensor_parallel, model.pipeline_parallel
    )
    engine.budget = model.batch_tokens or 0
    return engine


vllm = BackendKind("vllm", "vLLM in this process.", load=load, packages=("vllm",), divides=True)
