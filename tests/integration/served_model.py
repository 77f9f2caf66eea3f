"""A tiny base and a LoRA that are trained for a second, for tests of servers: answers end, labels differ."""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from testing.tiny import make_tiny
from tests.json_files import read_json, read_lines, write_json
from tests.unit.adapters.make import make
from tuneyard.eval.runs.results import PREDICTIONS

BOS, TURN, END = "<|begin|>", "<|turn|>", "<|done|>"
"""Names that llama.cpp does not know: it ends answers at <|im_end|>, whatever the file says."""
SYSTEM = "You are a helpful assistant."
TEMPLATE = (
    "{{ bos_token }}{% for m in messages %}{% if loop.first and m['role'] != 'system' %}"
    f"{{{{ '{TURN}system\\n{SYSTEM}{END}\\n' }}}}{{% endif %}}"
    f"{{{{ '{TURN}' + m['role'] + '\\n' + m['content'] + '{END}\\n' }}}}{{% endfor %}}"
    f"{{% if add_generation_prompt %}}{{{{ '{TURN}assistant\\n' }}}}"
    "{% if enable_thinking is defined and enable_thinking is false %}{{ '<think>\\n\\n</think>\\n\\n' }}"
    "{% endif %}{% endif %}"
)
"""The adapter's chat template. Training switches thinking off."""
BASE_TEMPLATE = (
    "{% for m in messages %}{{ '### ' + m['role'] + '\\n' + m['content'] + '\\n' }}{% endfor %}"
    "### assistant\n"
)
LABELS = ("yes", "no", "maybe")
ROWS = 12
RANK, ALPHA, VALUE_ALPHA = 4, 8, 32
"""VALUE_ALPHA: alpha_pattern's for v_proj."""


@dataclass(frozen=True)
class Trained:
    """Folders of the base and its adapter."""

    base: Path
    adapter: Path


def question(number: int) -> str:
    return f'Does "{number} men walk" imply that "{number + number % 3} people are outside"?'


def make_trained(home: Path, **sizes: int) -> Trained:
    """Train the base to say yes, and a LoRA with rsLoRA and an alpha_pattern to say no or maybe.

    walks.json has the rows. `sizes` are those of `make_tiny`.
    """
    from transformers import AutoModelForCausalLM, AutoTokenizer

    base = make_tiny(home / "base", **sizes)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        text = (base / name).read_text()
        for old, new in (("<|endoftext|>", BOS), ("<|im_start|>", TURN), ("<|im_end|>", END)):
            text = text.replace(old, new)
        (base / name).write_text(text)
    fields = read_json(base / "tokenizer_config.json")
    write_json(base / "tokenizer_config.json", {**fields, "bos_token": BOS})
    (base / "chat_template.jinja").write_text(BASE_TEMPLATE)
    rows = [{"instruction": question(number), "output": LABELS[number % 2 + 1]} for number in range(ROWS)]
    rows[0]["output"] = "yes"
    write_json(home / "walks.json", rows)
    tokenizer = AutoTokenizer.from_pretrained(base)
    prompts = []
    for row in rows:
        talk = [{"role": "user", "content": row["instruction"]}]
        text = tokenizer.apply_chat_template(
            talk, chat_template=TEMPLATE, tokenize=False, add_generation_prompt=True, enable_thinking=False
        )
        prompts.append(tokenizer(text, add_special_tokens=False)["input_ids"])
    net = AutoModelForCausalLM.from_pretrained(base)
    answers = [LABELS[max(number % 6 - 3, 0)] for number in range(ROWS)]
    train(net, list(net.parameters()), tokenizer, prompts, answers, 60, 3e-3)
    net.save_pretrained(base)
    net.requires_grad_(False)
    factors: dict[str, Any] = {}
    for number, layer in enumerate(net.model.layers):
        for name in ("q_proj", "v_proj", "o_proj"):
            alpha = VALUE_ALPHA if name == "v_proj" else ALPHA
            linear = getattr(layer.self_attn, name)
            factors[f"model.layers.{number}.self_attn.{name}"] = add_lora(linear, alpha / math.sqrt(RANK))
    parameters = [factor for pair in factors.values() for factor in pair]
    train(net, parameters, tokenizer, prompts, [row["output"] for row in rows], 120, 2e-2)
    pairs = {path: (a.detach().numpy(), b.detach().numpy()) for path, (a, b) in factors.items()}
    adapter = make(
        home / "walks", pairs, r=RANK, lora_alpha=ALPHA, use_rslora=True,
        alpha_pattern={"v_proj": VALUE_ALPHA}, target_modules=["q_proj", "v_proj", "o_proj"],
        base_model_name_or_path=str(base),
    )  # fmt: skip
    (adapter / "chat_template.jinja").write_text(TEMPLATE)
    return Trained(base, adapter)


def labels(folder: Path) -> list[dict[str, float]]:
    """Log-probabilities of the labels that a scoring of walks.json has in a model's folder, by row."""
    return [row["choices"] for row in read_lines(folder / "walks" / PREDICTIONS)]


def add_lora(linear: Any, scale: float) -> tuple[Any, Any]:
    """Let a linear module add scale·B·A, and return A and B."""
    import torch

    generator = torch.Generator().manual_seed(linear.out_features)
    a = torch.nn.Parameter(torch.randn(RANK, linear.in_features, generator=generator) / 8)
    b = torch.nn.Parameter(torch.zeros(linear.out_features, RANK))
    linear.register_forward_hook(lambda _, inputs, output: output + scale * (inputs[0] @ a.T @ b.T))
    return a, b


def train(
    net: Any, parameters: list[Any], tokenizer: Any, prompts: Any, answers: Any, steps: int, rate: float
) -> None:
    """Train on one batch of all rows; the loss is on answers and their ends."""
    import torch

    sequences = []
    for prompt, answer in zip(prompts, answers, strict=True):
        ids = tokenizer(answer, add_special_tokens=False)["input_ids"] + [tokenizer.eos_token_id]
        sequences.append((prompt, ids))
    longest = max(len(prompt) + len(ids) for prompt, ids in sequences)
    inputs = torch.zeros(len(sequences), longest, dtype=torch.long)
    targets = torch.full_like(inputs, -100)
    for number, (prompt, ids) in enumerate(sequences):
        inputs[number, : len(prompt) + len(ids)] = torch.tensor(prompt + ids)
        targets[number, len(prompt) : len(prompt) + len(ids)] = torch.tensor(ids)
    optimizer = torch.optim.AdamW(parameters, lr=rate)
    for _ in range(steps):
        net(input_ids=inputs, labels=targets).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
