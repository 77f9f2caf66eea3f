"""A random Qwen2 of a million parameters with a small BPE tokenizer, and one that sees: no learning."""

import json
import shutil
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from safetensors.numpy import save_file

CHATML = (
    "{% for m in messages %}{% if loop.first and m['role'] != 'system' %}"
    "{{ '<|im_start|>system\\nYou are a helpful assistant.<|im_end|>\\n' }}{% endif %}"
    "{{ '<|im_start|>' + m['role'] + '\\n' + m['content'] + '<|im_end|>\\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)
LLAMA3 = (
    "{{ '<|begin_of_text|>' }}{% for m in messages %}"
    "{{ '<|start_header_id|>' + m['role'] + '<|end_header_id|>\\n\\n' + m['content'] + '<|eot_id|>' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|start_header_id|>assistant<|end_header_id|>\\n\\n' }}{% endif %}"
)
WIDTHS = {"hidden_size": 64, "intermediate_size": 128, "num_attention_heads": 4, "num_key_value_heads": 2}
SIZES = {**WIDTHS, "num_hidden_layers": 2, "max_position_embeddings": 2048}
SHAPES = {  # of `make_tiny`: outputs, inputs
    "model.layers.0.self_attn.q_proj": (64, 64),
    "model.layers.0.self_attn.v_proj": (32, 64),
    "model.layers.1.mlp.down_proj": (64, 128),
}
CORPUS = [
    'Does "A man is walking a dog." imply that "A person is outside."?',
    "Please answer yes or no or maybe.You only need to answer one word, no explanation",
    "system user assistant You are a helpful assistant. yes no maybe entailment",
    "任务：根据事件描述判断故障组件。判断:网络设备 原因：无",
]


def make_tiny(folder: Path, *, seed: int = 0, tied: bool = True, **sizes: int) -> Path:
    """Write the model and tokenizer into `folder` (weights fp32, vocabulary below 1,024) and return it.

    `sizes` are settings of Qwen2Config, such as num_hidden_layers or hidden_size.
    """
    import torch
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast, Qwen2Config, Qwen2ForCausalLM

    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=1024,
        special_tokens=["<|endoftext|>", "<|im_start|>", "<|im_end|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    bpe.train_from_iterator(CORPUS * 4, trainer)
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=bpe,
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
        model_max_length=2048,
        clean_up_tokenization_spaces=False,
    )
    tokenizer.chat_template = CHATML
    torch.manual_seed(seed)
    config = Qwen2Config(
        **{"vocab_size": len(tokenizer), **SIZES, **sizes},
        tie_word_embeddings=tied,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    Qwen2ForCausalLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def make_weightless(folder: Path) -> Path:
    """Write config and tokenizer of `make_tiny` alone."""
    make_tiny(folder)
    (folder / "model.safetensors").unlink()
    return folder


def make_narrow(model: Path, folder: Path) -> Path:
    """Write a model folder like another, with fewer numbers a layer and random weights in fp32."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    shutil.copytree(model, folder, ignore=shutil.ignore_patterns("*.safetensors"))
    config = AutoConfig.from_pretrained(model, **WIDTHS, head_dim=16, dtype="float32")
    torch.manual_seed(0)
    AutoModelForCausalLM.from_config(config).save_pretrained(folder)
    return folder


def make_llama3(folder: Path) -> Path:
    """Write config and tokenizer of a tiny Llama with Llama 3's tokens and chat template, and return it."""
    from transformers import AutoTokenizer, LlamaConfig

    tokenizer = AutoTokenizer.from_pretrained(make_weightless(folder))
    marks = ["<|start_header_id|>", "<|end_header_id|>", "<|eom_id|>"]
    tokenizer.add_special_tokens({"additional_special_tokens": marks})
    tokenizer.add_special_tokens({"bos_token": "<|begin_of_text|>", "eos_token": "<|eot_id|>"})
    tokenizer.chat_template = LLAMA3
    tokenizer.save_pretrained(folder)
    config = LlamaConfig(vocab_size=len(tokenizer), **SIZES, eos_token_id=tokenizer.eos_token_id)
    config.save_pretrained(folder)
    return folder


def make_qwen3(folder: Path) -> Path:
    """Write config and tokenizer of a tiny Qwen3, whose chat template has no default system text."""
    from transformers import AutoConfig, AutoTokenizer, Qwen3Config

    vocabulary = AutoConfig.from_pretrained(make_weightless(folder)).vocab_size
    Qwen3Config(vocab_size=vocabulary, head_dim=16, **SIZES).save_pretrained(folder)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    start, end = CHATML.index("{% if loop"), CHATML.index("{{ '<|im_start|>' + m")
    tokenizer.chat_template = CHATML[:start] + CHATML[end:]
    tokenizer.save_pretrained(folder)
    return folder


def make_llama2(folder: Path) -> Path:
    """Write config and tokenizer of a tiny Llama without a chat template, and return it."""
    from transformers import AutoConfig, LlamaConfig

    vocabulary = AutoConfig.from_pretrained(make_base(folder)).vocab_size
    LlamaConfig(vocab_size=vocabulary, **SIZES).save_pretrained(folder)
    return folder


def make_base(folder: Path) -> Path:
    """Write config and tokenizer of a tiny model without a chat template, and return it."""
    make_weightless(folder)
    (folder / "chat_template.jinja").unlink()
    return folder


def make_experts(folder: Path) -> Path:
    """Write config and tokenizer of a tiny Qwen3-MoE into `folder` and return it."""
    from transformers import AutoConfig, Qwen3MoeConfig

    vocabulary = AutoConfig.from_pretrained(make_weightless(folder)).vocab_size
    experts = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 32}
    Qwen3MoeConfig(vocab_size=vocabulary, **SIZES, **experts).save_pretrained(folder)
    return folder


def make_seeing(folder: Path, *, weights: bool = False, kind: str = "qwen2_5_vl") -> Path:
    """Write config, tokenizer and processor of a tiny Qwen-VL (a model_type) into `folder` and return it."""
    from transformers import (
        AutoConfig,
        AutoModelForImageTextToText,
        AutoTokenizer,
        Qwen2_5_VLProcessor,
        Qwen2VLImageProcessor,
        Qwen2VLProcessor,
        Qwen3VLProcessor,
    )
    from transformers.models.qwen2_vl.video_processing_qwen2_vl import Qwen2VLVideoProcessor
    from transformers.models.qwen3_vl.video_processing_qwen3_vl import Qwen3VLVideoProcessor

    tokenizer = AutoTokenizer.from_pretrained(make_weightless(folder))
    marks = {"image": "<|image_pad|>", "video": "<|video_pad|>"}
    marks |= {"vision_start": "<|vision_start|>", "vision_end": "<|vision_end|>"}
    tokenizer.add_special_tokens({"additional_special_tokens": list(marks.values())})
    third = kind == "qwen3_vl"
    processors = {"qwen2_vl": Qwen2VLProcessor, "qwen3_vl": Qwen3VLProcessor}
    processors.get(kind, Qwen2_5_VLProcessor)(
        image_processor=Qwen2VLImageProcessor(patch_size=16 if third else 14),
        tokenizer=tokenizer,
        video_processor=Qwen3VLVideoProcessor() if third else Qwen2VLVideoProcessor(),
        chat_template=CHATML,
    ).save_pretrained(folder)
    rope = {"rope_type": "default", "mrope_section": [2, 3, 3], "rope_theta": 10000.0}
    eyes: dict[str, object] = {"depth": 1, "num_heads": 2, "hidden_size": 32, "intermediate_size": 64}
    eyes |= {"out_hidden_size": 64, "fullatt_block_indexes": [0], "deepstack_visual_indexes": [0]}
    if kind == "qwen2_vl":
        eyes = {"depth": 1, "num_heads": 2, "embed_dim": 32, "hidden_size": 64}
    config = AutoConfig.for_model(
        kind,
        text_config={**SIZES, "vocab_size": len(tokenizer), "rope_parameters": rope},
        vision_config=eyes,
        **{f"{name}_token_id": tokenizer.convert_tokens_to_ids(mark) for name, mark in marks.items()},
    )
    config.save_pretrained(folder)
    if weights:
        AutoModelForImageTextToText.from_config(config).save_pretrained(folder)
    return folder


def make_quantised(folder: Path, method: str = "gptq") -> Path:
    """Write config and tokenizer of a `make_llama3` whose weights are GPTQ's, or those of another method."""
    from transformers import AutoConfig

    config = AutoConfig.from_pretrained(make_llama3(folder))
    config.quantization_config = {"quant_method": method, "bits": 4, "group_size": 32}
    config.save_pretrained(folder)
    return folder


def write_adapter(
    folder: Path,
    shapes: Mapping[str, tuple[int, int]] = SHAPES,
    rank: int = 4,
    alpha: float = 8,
    seed: int = 0,
    scale: float = 1.0,
    **config: object,
) -> Path:
    """Write a LoRA adapter with normal factors of a standard deviation of `scale`."""
    random = np.random.default_rng(seed)
    tensors = {}
    for path, (outputs, inputs) in shapes.items():
        for name, size in (("A", (rank, inputs)), ("B", (outputs, rank))):
            factor = random.normal(scale=scale, size=size).astype("f4")
            tensors[f"base_model.model.{path}.lora_{name}.weight"] = factor
    folder.mkdir(parents=True)
    save_file(tensors, folder / "adapter_model.safetensors")
    targets = sorted({path.rpartition(".")[2] for path in shapes})
    fields = {"peft_type": "LORA", "r": rank, "lora_alpha": alpha, "target_modules": targets, **config}
    (folder / "adapter_config.json").write_text(json.dumps(fields), encoding="utf-8")
    return folder
