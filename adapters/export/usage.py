"""How what is uploaded is loaded, for the card: with PEFT or transformers, LLaMA-Factory and vLLM."""

from collections.abc import Mapping

from adapters.export.source import ExportSource

RANKS = (8, 16, 32, 64, 128, 256, 320, 512)  # that vLLM's --max-lora-rank takes
ASK = """\
messages = [{"role": "user", "content": "…"}]
asked = tokenizer.apply_chat_template(
    messages, add_generation_prompt=True, return_tensors="pt", return_dict=True
)
answer = model.generate(**asked, max_new_tokens=256)[0, asked["input_ids"].shape[1] :]
print(tokenizer.decode(answer, skip_special_tokens=True))
"""


def usage(source: ExportSource, repo: str, base: str, settings: Mapping[str, object]) -> str:
    """Return the section; `base` is the base's name, `settings` are the training's, for its template."""
    own = (source.folder / "tokenizer_config.json").is_file()
    tokenizer = repo if own or not source.adapter else base
    template = settings.get("template")
    asked = f" --template {template}" if template else ""
    served = f"vllm serve {repo}"
    if source.adapter:
        ranks = [module.rank for module in source.adapter.layout.values()]
        rank = next((rank for rank in RANKS if rank >= max(ranks, default=0)), max(ranks, default=0))
        served = f"vllm serve {base} --enable-lora --max-lora-rank {rank} --lora-modules mine={repo}"
    if source.adapter and source.adapter.full_tensors:
        served = "# vLLM takes no modules_to_save or bias beside a LoRA, as here: fuse it into the base first"
    return f"""## How to load it

```python
{_python(repo, base if source.adapter else None, tokenizer)}{ASK}```

```console
$ llamafactory-cli chat {_model(repo, base if source.adapter else None)}{asked}
{"" if served.startswith("#") else "$ "}{served}
```"""


def _python(repo: str, base: str | None, tokenizer: str) -> str:
    peft = "from peft import PeftModel\n" if base else ""
    adapted = f'model = PeftModel.from_pretrained(model, "{repo}")\n' if base else ""
    return f"""{peft}from transformers import AutoModelForCausalLM, AutoTokenizer

model = AutoModelForCausalLM.from_pretrained("{base or repo}", dtype="auto")
{adapted}tokenizer = AutoTokenizer.from_pretrained("{tokenizer}")
"""


def _model(repo: str, base: str | None) -> str:
    adapted = f" --adapter_name_or_path {repo}" if base else ""
    return f"--model_name_or_path {base or repo}{adapted}"
