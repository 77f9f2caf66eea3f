"""Stages and methods of the table: what a recipe of each sets, and which model and data it takes."""

from dataclasses import dataclass, field

STEPS = 2


@dataclass(frozen=True, slots=True)
class Stage:
    """A stage of LLaMA-Factory as a user means it.

    `spec`: the spec that compiles its rows. `scored_by`: the subcommand of `tuneyard eval`, None if no
    command measures what the stage trains. `sees`: the model and the rows have images.
    """

    settings: dict[str, object]
    spec: str
    scored_by: str | None
    sees: bool = False


@dataclass(frozen=True, slots=True)
class Method:
    """A training method. `is_adapter`: it writes an adapter, not whole weights."""

    settings: dict[str, object]
    is_adapter: bool = True
    fuse_options: list[str] = field(default_factory=list)


STAGES = {
    "pt": Stage({"stage": "pt", "packing": True}, "text", "text"),
    "sft": Stage({"stage": "sft"}, "io", "text"),
    "rm": Stage({"stage": "rm"}, "pairs", None),
    "dpo": Stage({"stage": "dpo"}, "pairs", "preference"),
    "orpo": Stage({"stage": "dpo", "pref_loss": "orpo"}, "pairs", "preference"),
    "simpo": Stage({"stage": "dpo", "pref_loss": "simpo", "pref_beta": 2.5}, "pairs", "preference"),
    "kto": Stage({"stage": "kto"}, "kto", "preference"),
    "sft with images": Stage({"stage": "sft"}, "media", "text", sees=True),
    "dpo with images": Stage({"stage": "dpo"}, "seen-pairs", "preference", sees=True),
}
LORA = {"finetuning_type": "lora", "lora_rank": 4, "lora_target": "all", "learning_rate": 0.01}
FULL = {"learning_rate": 0.001}
METHODS = {
    "lora": Method(LORA),
    "rslora": Method({**LORA, "use_rslora": True}),
    "LoRA+": Method({**LORA, "loraplus_lr_ratio": 16}),
    "DoRA": Method({**LORA, "use_dora": True}),
    "PiSSA": Method({**LORA, "pissa_init": True, "pissa_convert": True}),
    "qlora": Method({**LORA, "quantization_bit": 4}, fuse_options=["--base-as", "nf4-double"]),
    "full": Method({**FULL, "finetuning_type": "full"}, is_adapter=False),
    "freeze": Method({**FULL, "finetuning_type": "freeze", "freeze_trainable_layers": 1}, is_adapter=False),
    "oft": Method({"finetuning_type": "oft", "oft_target": "all", "learning_rate": 0.01}),
}


def cell_name(stage: str, method: str) -> str:
    """The name of a cell, as --only takes it."""
    return f"{stage}/{method}"


CELLS = [cell_name(stage, method) for stage in STAGES for method in METHODS]
