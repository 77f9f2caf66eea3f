"""transformers, in this process or in workers."""

from itertools import chain

from tuneyard.core.language.message import tr
from tuneyard.eval.models import Backend
from tuneyard.eval.models.backends import BackendKind, ModelToLoad

BATCH_TOKENS = {"cpu": 2048, "cuda": 32768}


def load(model: ModelToLoad) -> Backend:
    """The base, on which each adapter must fit."""
    from tqdm import tqdm

    from tuneyard.eval.models.apply import check_fits
    from tuneyard.eval.models.load import load_model
    from tuneyard.eval.models.worker_model import open_in_workers

    adapters = {weighted.adapter.folder: weighted.adapter for weighted in chain(*model.candidates)}
    with tqdm(desc=tr("loading {folder}", folder=model.folder), bar_format="{desc} …", leave=False):
        if model.workers:
            loaded = open_in_workers(model.workers, model.folder, list(adapters), model.dtype, model.quantize)
        else:
            loaded = load_model(model.folder, model.dtype, model.quantize)
    for adapter in adapters.values():
        check_fits(loaded, adapter)
    loaded.budget = loaded.budget or model.batch_tokens or BATCH_TOKENS[loaded.device]
    return loaded


hf = BackendKind(
    "hf",
    load=load,
    in_workers=True,
    weights_adapters=True,
    changes_weights=True,
    reads_generation_config=True,
    gives_text_losses=True,
)
