"""The similarity of two answers in meaning: the cosine of their embeddings."""

from pathlib import Path

from core.errors import RequestError
from eval.backends.load import find_model, loading, model_digest


class Embedding:
    """A sentence-transformers model, from a folder or the hub: safetensors only, none of its own code."""

    def __init__(self, reference: str) -> None:
        """Load the model; `name` says what made the figures, its weights included.

        `RequestError` if it is not there, `ContentError` if it is none that embeds sentences.
        """
        folder = find_model(reference)
        if not (folder / "modules.json").is_file():
            raise RequestError(f"{folder}: no modules.json: not a sentence-transformers model")

        from sentence_transformers import SentenceTransformer
        from transformers.utils import logging

        logging.disable_progress_bar()
        with loading(folder):
            self._model = SentenceTransformer(
                str(folder), trust_remote_code=False, model_kwargs={"use_safetensors": True}
            )
        self.name = f"semantic: cosine by {Path(reference).name} ({model_digest(folder)[:16]})"

    def compare(self, expected: str, given: str) -> float:
        """Return the cosine of two texts, -1 to 1."""
        wanted, said = self._model.encode(
            [expected, given], normalize_embeddings=True, show_progress_bar=False
        )
        return float(wanted @ said)
