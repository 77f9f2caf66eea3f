"""python -m recipes.inspect SETTINGS.json [WEIGHTS.yaml COUNT]: ask LLaMA-Factory about a recipe.

In a process of its own: its argument classes judge the settings, its loader, converter and processor the rows
(recipes/rows.py), and the model with its adapter is laid out on the meta device from its config alone. Writes
one JSON object to stdout; nothing is trained, no weights are read, no network is used.
"""

import contextlib
import io
import json
import sys
from pathlib import Path
from typing import Any

from core.files import read_object
from core.llamafactory import RecipeData, read_arguments
from core.patterns import bounded
from recipes.rows import epoch, look, refusals, words
from recipes.token_weights import read_weights, token_spans

CHAT = [{"role": "user", "content": "Is 12 even?"}, {"role": "assistant", "content": "yes"}]
ASKED = {"add_generation_prompt": True, "enable_thinking": False, "return_dict": False}
TOOL = {"type": "function", "function": {"name": "even", "parameters": {"type": "object", "properties": {}}}}
# What only the machine and the launcher that train can be asked about; recipes/rules.py judges it.
ELSEWHERE = ("deepspeed", "fp16", "fsdp", "fsdp_config", "resume_from_checkpoint", "tf32")


def inspect(settings: dict[str, object]) -> dict[str, object]:
    """Return LLaMA-Factory's view: `rejected`, else `data`, `tokens`, `model`; {"error": why} for a lack."""
    try:
        reader = _arguments(settings)
    except refusals() as error:
        return {"rejected": words(error)}
    data_args = reader.data_args
    tokens: dict[str, Any] = {}
    try:
        reader, tokens["template"] = _with_tokenizer(reader)
    except refusals() as error:
        tokens["error"] = words(error)
    try:
        model = _model(reader.model_args, reader.finetuning_args, reader.module.get("tokenizer"))
    except refusals() as error:
        model = {"error": words(error)}
    names = dict.fromkeys([*(data_args.dataset or []), *(data_args.eval_dataset or [])])
    data = {name: look(reader, name) for name in names}
    lengths = {name: about.pop("lengths", None) for name, about in data.items()}
    rejected = None
    sets = [lengths[name] for name in data_args.dataset or []]
    if sets and all(sets):
        others = [lengths[name] or [] for name in data_args.eval_dataset or []]
        try:
            tokens["train"] = epoch(reader, sets, others, settings.get("preprocessing_num_workers"))
        except refusals() as error:  # a share held out, or probabilities, that it cannot take
            rejected = words(error)
    if reader.module:
        tokens["datasets"] = {name: about["tokens"] for name, about in data.items() if about.get("tokens")}
    return {"rejected": rejected, "data": data, "tokens": tokens, "model": model}


def _arguments(settings: dict[str, object], **changes: object) -> RecipeData:
    return read_arguments({key: settings[key] for key in settings if key not in ELSEWHERE}, **changes)


def _with_tokenizer(reader: RecipeData) -> tuple[RecipeData, str]:
    """Return the reader with template and tokenizer, and where its prompt leaves the chat template."""
    reader = reader.with_tokenizer()
    tokenizer = reader.module["tokenizer"]
    tools = [None, TOOL] if _has_tools(reader) else [None]
    chats = [_chat_ids(tokenizer, tool) for tool in tools]  # before the template mends the tokenizer
    reader, pairs = reader.with_template(), zip(chats, tools, strict=True)
    found = (_template_difference(reader.template, tokenizer, *pair) for pair in pairs)
    return reader, "" if reader.stage == "pt" else next(filter(None, found), "")


def _has_tools(reader: RecipeData) -> bool:
    try:
        tools = [reader.attributes(name).tools for name in reader.data_args.dataset or []]
    except refusals():
        return False
    return any(tools)


def preview(settings: dict[str, object], weights: Path, count: int) -> list[list[tuple[str, float]]]:
    """Return the first `count` rows of the training data as (text, weight) pairs; the prompt weighs 0."""
    reader, _ = _with_tokenizer(_arguments(settings, max_samples=count))
    tokenizer, rules = reader.module["tokenizer"], read_weights(weights)
    shown: list[list[tuple[str, float]]] = []
    for row in reader.rows(reader.data_args.dataset[0]):
        shown.append([])
        talk = (row["_prompt"] + row["_response"][:1], row["_system"], row["_tools"])
        for asked, answer in reader.template.encode_multiturn(tokenizer, *talk):
            texts = [text for _, _, text in token_spans(answer, tokenizer.decode)]
            weighed = zip(texts, rules.of_answer(answer, tokenizer.decode), strict=True)
            shown[-1] += [(tokenizer.decode(asked), 0.0), *weighed]
    return shown


def _chat_ids(tokenizer: Any, tool: object = None) -> list[int] | None:
    """Return one exchange as the tokenizer's own chat template has it, thinking off (None: no template)."""
    if not isinstance(tokenizer.chat_template, str):
        return None
    with bounded("the tokenizer's chat template"):
        return list(tokenizer.apply_chat_template(CHAT[:1], tools=[tool] if tool else None, **ASKED))


def _template_difference(template: Any, tokenizer: Any, chat: list[int] | None, tool: object = None) -> str:
    """Return where LLaMA-Factory's prompt leaves the tokenizer's own chat template, "" where it does not."""
    if chat is None:
        return "the tokenizer has no chat template to compare with"
    prompt = list(template.encode_oneturn(tokenizer, CHAT, None, json.dumps([tool]) if tool else None)[0])
    if prompt == chat:
        return ""
    equal = [one == two for one, two in zip(prompt, chat, strict=False)]
    place = [*equal, False].index(False)
    ours, theirs = (tokenizer.decode(ids[max(0, place - 3) : place + 8]) for ids in (prompt, chat))
    where = "with tools and no system text, " if tool else ""
    return f"{where}at token {place + 1} it trains {ours!r}, the model's own chat template has {theirs!r}"


def _model(model_args: Any, finetuning_args: Any, tokenizer: Any) -> dict[str, object]:
    """Return parameters and shapes from the config alone, modules that are `unfit`, why it is `refused`."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForImageTextToText

    config = AutoConfig.from_pretrained(model_args.model_name_or_path, trust_remote_code=False)
    sees = type(config) in AutoModelForImageTextToText._model_mapping
    with torch.device("meta"):
        model = (AutoModelForImageTextToText if sees else AutoModelForCausalLM).from_config(config)
        known = len(model.get_input_embeddings().weight)
        if model_args.resize_vocab and tokenizer and len(tokenizer) > known:
            model.resize_token_embeddings(len(tokenizer), pad_to_multiple_of=64, mean_resizing=False)
    text = config.get_text_config()
    linear = [m for name, m in model.named_modules() if not name.endswith("lm_head")]
    return {
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "linear": sum(m.weight.numel() for m in linear if type(m).__name__ == "Linear"),
        "hidden": text.hidden_size,
        "intermediate": getattr(text, "intermediate_size", 4 * text.hidden_size),
        "layers": text.num_hidden_layers,
        "quantised": hasattr(config, "quantization_config"),  # GPTQ, AWQ: its weights are no 16 bits
        "vocabulary": len(model.get_input_embeddings().weight),
        **_adapted(config, model, model_args, finetuning_args),
    }


def _adapted(config: Any, model: Any, model_args: Any, finetuning_args: Any) -> dict[str, object]:
    """Return how many parameters are trained, as LLaMA-Factory itself prepares the model (and changes it)."""
    import torch
    from llamafactory.model.adapter import init_adapter

    modules = [f".{name}" for name, _ in model.named_modules()]
    weights = model.named_parameters(remove_duplicate=False)  # a tied head is a layer of its own
    layers = [f".{name}".removesuffix(".weight") for name, _ in weights]
    unfit = {}
    for key, paths in {"lora_target": layers, "additional_target": modules}.items():
        names = [name for name in getattr(finetuning_args, key, None) or [] if name != "all"]
        unfit[key] = [name for name in names if not any(path.endswith(f".{name}") for path in paths)]
    model_args.adapter_name_or_path, finetuning_args.pissa_init = None, False  # which read weights
    model_args.use_unsloth = False  # which patches the same modules, and may not be installed here
    try:
        with torch.device("meta"):
            model = init_adapter(config, model, model_args, finetuning_args, is_trainable=True)
    except refusals() as error:
        return {"trainable": None, "unfit": unfit, "refused": words(error)}
    trained = sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)
    known = finetuning_args.finetuning_type in ("full", "lora")  # what recipes/costs.py can plan
    return {"trainable": int(trained) if known else None, "unfit": unfit, "refused": ""}


if __name__ == "__main__":
    with contextlib.redirect_stdout(io.StringIO()):  # LLaMA-Factory prints as it goes
        settings = read_object(Path(sys.argv[1]))
        shown = sys.argv[2:]  # WEIGHTS.yaml COUNT
        answer = {"rows": preview(settings, Path(shown[0]), int(shown[1]))} if shown else inspect(settings)
    json.dump(answer, sys.stdout)
