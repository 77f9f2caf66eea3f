"""What a stage does with a row beyond one forward and one backward pass: a second side, a reference model.

Follows LLaMA-Factory 0.9.5: train/dpo and train/rm put both sides of a pair through the model in one batch;
train/kto also reads each answer's mismatched twin (its KL term) without gradients; the reference model is
the base under the adapter for LoRA, a second model otherwise.
"""

from dataclasses import dataclass

from recipes.recipe import Recipe

WITHOUT_REFERENCE = ("orpo", "simpo")  # pref_loss of stage dpo


@dataclass(frozen=True, slots=True)
class Passes:
    """How a stage reads rows.

    `sequences` of a row are counted in its tokens, `together` of them stand in one micro batch; `trained` is
    the share of its tokens that is trained on, `read` how often each token is read without gradients;
    `copy` says that the reference is a second model in memory.
    """

    sequences: int = 1
    together: int = 1
    trained: float = 1.0
    read: float = 0.0
    copy: bool = False


MODELLED = ("pt", "sft", "rm", "dpo", "kto")


def passes_of(recipe: Recipe) -> Passes:
    """Return what the recipe's stage does with each row; one pass for a stage that is not modelled."""
    settings = recipe.settings
    stage = settings.get("stage", "sft")
    copy = settings.get("finetuning_type", "lora") != "lora" or bool(settings.get("ref_model"))
    if stage == "kto":
        return Passes(sequences=2, trained=0.5, read=1.5, copy=copy)
    if stage == "dpo" and settings.get("pref_loss", "sigmoid") not in WITHOUT_REFERENCE:
        return Passes(sequences=2, together=2, read=1.0, copy=copy)
    return Passes(sequences=2, together=2) if stage in ("dpo", "rm") else Passes()
