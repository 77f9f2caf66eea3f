"""python -m recipes.inspect SETTINGS.json [WEIGHTS.yaml COUNT]: ask LLaMA-Factory about a recipe.

Runs in a process of its own.
Its argument classes judge the settings, its own loader, template and tokenizer count the tokens, and the
model is laid out on the meta device from its config alone. Reads one JSON object of settings from the
file, writes one JSON object to stdout; nothing is trained, no weights are read, no network is used.
"""

import contextlib
import io
import json
import math
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from core.files import read_object
from recipes.token_weights import read_weights, token_spans

CHAT = [{"role": "user", "content": "Is 12 even?"}, {"role": "assistant", "content": "yes"}]
# What LLaMA-Factory and transformers raise for settings, models and data that they cannot use.
REFUSALS = (
    ValueError,
    TypeError,
    ImportError,
    OSError,
    KeyError,
    RuntimeError,
    AttributeError,
    NotImplementedError,
)


def inspect(settings: dict[str, object]) -> dict[str, object]:
    """Return LLaMA-Factory's view of settings: `rejected`, `template`, `tokens` and `model`.

    A part that could not be looked at is {"error": why}; after a rejection nothing else is looked at.
    """
    from llamafactory.hparams import get_train_args

    with tempfile.TemporaryDirectory() as folder:  # it looks for checkpoints in output_dir
        asked = {
            key: value
            for key, value in settings.items()
            if key not in {"deepspeed", "resume_from_checkpoint"}
        }
        try:
            model_args, data_args, training_args, finetuning_args, _ = get_train_args(
                {**asked, "output_dir": folder, "use_cpu": True, "report_to": "none"}
            )
        except REFUSALS as error:
            return {"rejected": f"{error}" or type(error).__name__}
    found: dict[str, object] = {"rejected": None}
    parts: dict[str, Callable[[], dict[str, object]]] = {
        "tokens": lambda: _tokens(model_args, data_args, training_args, finetuning_args.stage),
        "model": lambda: _model(model_args, finetuning_args),
    }
    for name, look in parts.items():
        try:
            found[name] = look()
        except REFUSALS as error:
            found[name] = {"error": (str(error) or type(error).__name__).splitlines()[0]}
    return found


def _tokens(model_args: Any, data_args: Any, training_args: Any, stage: str) -> dict[str, object]:
    """Return for each dataset its rows, tokens, longest row and rows cut, and how the template differs."""
    from llamafactory.data import get_template_and_fix_tokenizer
    from llamafactory.data.loader import _load_single_dataset
    from llamafactory.data.parser import get_dataset_list
    from llamafactory.model import load_tokenizer

    module = load_tokenizer(model_args)
    tokenizer = module["tokenizer"]
    chat = _chat_ids(tokenizer)
    template = get_template_and_fix_tokenizer(tokenizer, data_args)
    counts: dict[str, object] = {}
    for name in dict.fromkeys([*(data_args.dataset or []), *(data_args.eval_dataset or [])]):
        (attributes,) = get_dataset_list([name], data_args.dataset_dir)
        rows = _load_single_dataset(attributes, model_args, data_args, training_args)
        lengths = list(_lengths(rows, template, tokenizer, stage))
        counts[name] = _summary(lengths, data_args.cutoff_len)
    difference = "" if stage == "pt" else _template_difference(template, tokenizer, chat)
    return {"datasets": counts, "template": difference}


def preview(settings: dict[str, object], weights: Path, count: int) -> list[list[tuple[str, float]]]:
    """Return the first `count` rows of the training data as (text, weight) pairs; the prompt weighs 0."""
    from llamafactory.data import get_template_and_fix_tokenizer
    from llamafactory.data.loader import _load_single_dataset
    from llamafactory.data.parser import get_dataset_list
    from llamafactory.hparams import get_train_args
    from llamafactory.model import load_tokenizer

    with tempfile.TemporaryDirectory() as folder:
        asked = {key: value for key, value in settings.items() if key != "deepspeed"}
        changed = {"output_dir": folder, "use_cpu": True, "report_to": "none", "max_samples": count}
        model_args, data_args, training_args, _, _ = get_train_args({**asked, **changed})
    tokenizer = load_tokenizer(model_args)["tokenizer"]
    template = get_template_and_fix_tokenizer(tokenizer, data_args)
    rules = read_weights(weights)
    (attributes,) = get_dataset_list(data_args.dataset[:1], data_args.dataset_dir)
    shown = []
    for row in _load_single_dataset(attributes, model_args, data_args, training_args):
        pieces: list[tuple[str, float]] = []
        turns = template.encode_multiturn(
            tokenizer, row["_prompt"] + row["_response"], row["_system"], row["_tools"]
        )
        for asked_ids, answer in turns:
            pieces.append((tokenizer.decode(asked_ids), 0.0))
            spans = token_spans(answer, tokenizer.decode)
            weighed = rules.of_answer(answer, tokenizer.decode)
            pieces += [(text, weight) for (_, _, text), weight in zip(spans, weighed, strict=True)]
        shown.append(pieces)
    return shown


def _lengths(rows: Any, template: Any, tokenizer: Any, stage: str) -> Iterator[int]:
    """Yield the tokens of each row before it is cut, as LLaMA-Factory encodes it."""
    from tqdm import tqdm

    for row in tqdm(rows, desc="counting tokens", unit="row", delay=2, file=sys.stderr):
        if stage == "pt":
            text = row["_prompt"][0]["content"] + tokenizer.eos_token
            yield len(tokenizer(text, add_special_tokens=False)["input_ids"])
        else:
            turns = template.encode_multiturn(
                tokenizer, row["_prompt"] + row["_response"], row["_system"], row["_tools"]
            )
            yield sum(len(asked) + len(answered) for asked, answered in turns) + template.efficient_eos


def _summary(lengths: list[int], cutoff: int) -> dict[str, object]:
    ordered = sorted(lengths)
    return {
        "rows": len(lengths),
        "tokens": sum(lengths),
        "seen": sum(min(length, cutoff) for length in lengths),
        "median": ordered[len(ordered) // 2] if ordered else 0,
        "longest": ordered[-1] if ordered else 0,
        "cut": sum(length > cutoff for length in lengths),
    }


def _chat_ids(tokenizer: Any) -> list[int] | None:
    """Return one exchange as the tokenizer's own chat template has it, thinking off (None: no template)."""
    if not isinstance(tokenizer.chat_template, str):
        return None
    ids = tokenizer.apply_chat_template(
        CHAT[:1], add_generation_prompt=True, enable_thinking=False, return_dict=False
    )
    return list(ids)


def _template_difference(template: Any, tokenizer: Any, chat: list[int] | None) -> str:
    """Return where LLaMA-Factory's prompt leaves the tokenizer's own chat template, "" where it does not."""
    if chat is None:
        return "the tokenizer has no chat template to compare with"
    prompt = list(template.encode_oneturn(tokenizer, CHAT)[0])
    if prompt == chat:
        return ""
    place = next(
        (i for i, (one, two) in enumerate(zip(prompt, chat, strict=False)) if one != two),
        min(len(prompt), len(chat)),
    )
    ours, theirs = (tokenizer.decode(ids[max(0, place - 3) : place + 8]) for ids in (prompt, chat))
    return f"at token {place + 1} it trains {ours!r}, the model's own chat template has {theirs!r}"


def _model(model_args: Any, finetuning_args: Any) -> dict[str, object]:
    """Return parameters, all and trainable, and the shapes that memory depends on, from the config alone."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    config = AutoConfig.from_pretrained(model_args.model_name_or_path)
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config)
    text = config.get_text_config()
    return {
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "trainable": _trainable(model, finetuning_args),
        "embeddings": math.prod(model.get_input_embeddings().weight.shape),
        "linear": sum(m.weight.numel() for name, m in model.named_modules() if _is_linear(name, m)),
        "hidden": text.hidden_size,
        "intermediate": getattr(text, "intermediate_size", 4 * text.hidden_size),
        "layers": text.num_hidden_layers,
        "heads": text.num_attention_heads,
        "kv_heads": getattr(text, "num_key_value_heads", text.num_attention_heads),
        "vocabulary": text.vocab_size,
        "max_length": text.max_position_embeddings,
    }


def _is_linear(name: str, module: Any) -> bool:
    return type(module).__name__ == "Linear" and not name.endswith("lm_head")


def _trainable(model: Any, finetuning_args: Any) -> int | None:
    """Return how many parameters are trained: all (full), those of LoRA, None for other methods."""
    if finetuning_args.finetuning_type == "full":
        return int(sum(parameter.numel() for parameter in model.parameters()))
    if finetuning_args.finetuning_type != "lora":
        return None
    targets, rank = finetuning_args.lora_target, finetuning_args.lora_rank
    total: int = 0
    for name, module in model.named_modules():
        if _is_linear(name, module) and (targets == ["all"] or name.rsplit(".", 1)[-1] in targets):
            total += rank * (module.in_features + module.out_features)
    if not total:
        raise ValueError(f"lora_target {','.join(targets)} fits no layer of the model")
    return total


if __name__ == "__main__":
    with contextlib.redirect_stdout(io.StringIO()):  # LLaMA-Factory prints as it goes
        settings = read_object(Path(sys.argv[1]))
        shown = sys.argv[2:]  # WEIGHTS.yaml COUNT
        answer = {"rows": preview(settings, Path(shown[0]), int(shown[1]))} if shown else inspect(settings)
    json.dump(answer, sys.stdout)
