"""The hub's model card: base and licence, data, recipe and results, as far as files beside it tell."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from adapters import vllm
from adapters.cards import made_from
from adapters.config import CONFIG
from adapters.export.source import ExportSource, front_matter, licence_of
from adapters.output import CARD, MARK
from adapters.store import Adapter
from core.documents import dump_yaml, markdown_table
from core.errors import ContentError, RequestError
from core.files import read_json, read_object, require, sha256
from core.runs import run_of

USAGE = """## How to load it

```python
{peft}from transformers import AutoModelForCausalLM, AutoTokenizer

model = AutoModelForCausalLM.from_pretrained("{model}", dtype="auto")
{adapted}tokenizer = AutoTokenizer.from_pretrained("{tokenizer}")
messages = [{{"role": "user", "content": "…"}}]
prompt = tokenizer.apply_chat_template(
    messages, add_generation_prompt=True, return_tensors="pt", return_dict=True
)
answer = model.generate(**prompt, max_new_tokens=256)[0, prompt["input_ids"].shape[1] :]
print(tokenizer.decode(answer, skip_special_tokens=True))
```

```console
$ llamafactory-cli chat {named}{template}
{served}
```"""


@dataclass(frozen=True, slots=True)
class Card:
    """The text of README.md, and what it could not find out."""

    text: str
    notes: list[str]


def make_card(source: ExportSource, name: str, licence: str | None, results: list[Path]) -> Card:
    """Return the card of a model or adapter; `licence` overrides what the base's files say."""
    notes: list[str] = []
    runs = _runs(source.folder, source.name, notes)
    base = _base_name(source) or "BASE"
    base = Path(base).name if Path(base).is_absolute() else base
    settings: dict[str, Any] = next((run["settings"] for run in runs.values() if run.get("settings")), {})
    sections = [
        f"# {name.rpartition('/')[2]}",
        _description(source, base, runs),
        _introduction(source, licence, notes),
        _usage(source, name, base, settings.get("template")),
        _data(runs, notes),
        _recipe(runs, notes),
        _results(source, results, notes),
        _own_words(source),
    ]
    head = _front_matter(source, licence, notes)
    return Card(head + "\n" + "\n\n".join(section for section in sections if section) + "\n", notes)


def _front_matter(source: ExportSource, licence: str | None, notes: list[str]) -> str:
    base, found = _base_name(source), licence_of(source)
    stated = found[0] if found else {"license": "unknown"}
    fields: dict[str, object] = {"license": licence} if licence else {**stated}
    if base and _on_hub(base):
        fields["base_model"] = base
    else:
        notes.append(
            f"the base is named {base or 'nowhere'}, no hub id: those who download this cannot find it"
            + (f"; set base_model_name_or_path in {CONFIG}" if source.adapter else "")
        )
    fields["library_name"] = "peft" if source.adapter else "transformers"
    fields["pipeline_tag"] = "text-generation"
    fields["tags"] = ["lora", "tuneyard"] if source.adapter else ["tuneyard"]
    return f"---\n{dump_yaml(fields)}---\n"


def _on_hub(base: str) -> bool:
    return re.fullmatch(r"[\w.-]+/[\w.-]+", base) is not None and not Path(base).is_dir()


def _base_name(source: ExportSource) -> str | None:
    if source.adapter:
        return source.adapter.base
    named = front_matter(source.folder).get("base_model")
    return named if isinstance(named, str) else None


def _runs(folder: Path, name: str, notes: list[str]) -> dict[str, dict[str, Any]]:
    """What trainings were made of, by adapter: the folder's own, or of those merged or fused into it."""
    if own := run_of(folder):
        return {name: own}
    runs: dict[str, dict[str, Any]] = {}
    for found in made_from(folder / CARD):
        if isinstance(found, Adapter):
            inside = _runs(found.folder, found.name, notes)
            runs |= inside
            notes += [] if inside else [f"data and recipe of {found.name} in it not recorded"]
        else:
            notes.append(f"data and recipe of an adapter in it not known: {found}")
    return runs


def _description(source: ExportSource, base: str, runs: Mapping[str, dict[str, Any]]) -> str:
    data = [str(one["dataset"]) for run in runs.values() for one in run.get("data") or []]
    kind = "A LoRA adapter for" if source.adapter else "A full model: adapters fused into"
    trained = f", trained on {', '.join(dict.fromkeys(data))}" if data else ""
    return f"{kind} {base}{trained}."


def _introduction(source: ExportSource, licence: str | None, notes: list[str]) -> str:
    found = licence_of(source)
    if licence:
        terms = f"{licence} (as stated at export)"
    elif found:
        where = "the base's" if found[1].parent == source.base else "this folder's"
        terms = f"{found[0].get('license_name', found[0]['license'])} (from {where} {found[1].name})"
    else:
        terms = "unknown: look it up at the base before you use this model"
        notes.append("licence of the base unknown: state it with --license ID, e.g. apache-2.0")
    base = _base_name(source)
    if base and _on_hub(base):
        page = f"https://huggingface.co/{base}"
        terms += f", [stated there]({page if licence or not found else found[0].get('license_link', page)})"
    rows = [["base", base or "not recorded"], ["licence of the base", terms]]
    if source.adapter:
        lora, layout = source.adapter.lora, source.adapter.layout
        targets = sorted({module.rpartition(".")[2] for module in layout})
        ranks = sorted({module.rank for module in layout.values()})
        size = sum(module.rank * (module.inputs + module.outputs) for module in layout.values())
        rank = f"{ranks[0]}" if len(ranks) == 1 else f"{ranks[0]}–{ranks[-1]}"
        rows += [
            ["adapter", f"LoRA of rank {rank}, alpha {lora.alpha:g}, on {', '.join(targets)}"],
            ["parameters", f"{size:,} in {len(layout)} modules"],
            ["SHA-256 of the weights", f"`{source.adapter.weights_sha256}`"],
        ]
    return markdown_table(["", ""], rows)


def _usage(source: ExportSource, repo: str, base: str, template: object) -> str:
    """Return how it is loaded: PEFT or transformers, LLaMA-Factory (`template`: the training's) and vLLM."""
    model, named = repo, f"--model_name_or_path {repo}"
    peft, adapted, tokenizer, served = "", "", repo, f"$ vllm serve {repo}"
    if source.adapter:
        model, named = base, f"--model_name_or_path {base} --adapter_name_or_path {repo}"
        peft = "from peft import PeftModel\n"
        adapted = f'model = PeftModel.from_pretrained(model, "{repo}")\n'
        tokenizer = repo if (source.folder / "tokenizer_config.json").is_file() else base
        rank = max(module.rank for module in source.adapter.layout.values())
        rank = vllm.max_rank(rank) or rank
        served = f"$ vllm serve {base} --enable-lora --max-lora-rank {rank} --lora-modules mine={repo}"
        if source.adapter.full_tensors:
            served = f"# {vllm.NO_FULL_TENSORS}"
    return USAGE.format(
        peft=peft, model=model, adapted=adapted, tokenizer=tokenizer, named=named, served=served,
        template=f" --template {template}" if template else "",
    )  # fmt: skip


def _data(runs: Mapping[str, dict[str, Any]], notes: list[str]) -> str:
    listed = [entry for run in runs.values() for entry in run.get("data") or []]
    used = {entry["dataset"]: entry for entry in listed if isinstance(entry, dict)}.values()
    if not used:
        notes.append("data not recorded beside the weights (run.json of `python -m recipes train`)")
        return ""
    rows = [[entry["dataset"], _about(entry), f"`{entry['sha256']}`"] for entry in used]
    return "## Data\n\n" + markdown_table(["dataset", "what it is", "SHA-256"], rows)


def _about(entry: dict[str, Any]) -> str:
    """Return a set's description and rows from its manifest, if that is still the one of the training."""
    manifest = Path(entry["file"]).parent / "manifest.json"
    if not manifest.is_file() or sha256(manifest) != entry.get("manifest_sha256"):
        return "its manifest is not there any more"
    fields: dict[str, Any] = read_object(manifest)
    rows = fields["files"].get(Path(entry["file"]).name, {}).get("rows")
    return f"{fields['about']}, {rows:,} rows" if rows else str(fields["about"])


def _recipe(runs: Mapping[str, dict[str, Any]], notes: list[str]) -> str:
    known = {name: run["settings"] for name, run in runs.items() if run.get("settings")}
    if not known:
        notes.append("recipe not recorded beside the weights (run.json of `python -m recipes train`)")
    return "\n\n".join(
        f"## Recipe{f' of {name}' if len(runs) > 1 else ''}\n\n```yaml\n{dump_yaml(settings)}```"
        for name, settings in known.items()
    )


def _results(source: ExportSource, places: list[Path], notes: list[str]) -> str:
    """Return the results found under the given folders; those of this adapter are known by its hash."""
    files = [file for place in places for file in _result_files(place)]
    if not files:
        return ""
    rows, proved = [], False
    for file in files:
        fields = _read_result(file)
        hashes = fields.get("hashes", {}).get("adapters", {})
        own = source.adapter is not None and source.adapter.digest in hashes.values()
        proved |= own
        low, high = fields["ci95"]
        shares = f"{fields['accuracy']:.1%}", f"{low:.1%}–{high:.1%}", f"{fields['majority']:.1%}"
        model = f"{fields['model']}{' (this adapter)' if own else ''}"
        rows.append([model, fields["set"], f"{fields['n']:,}", *shares])
    if source.adapter and not proved:
        notes.append("none of the results is of this adapter: their hashes are of other weights")
    header = ["model", "set", "examples", "accuracy", "95 % interval", "majority-class baseline"]
    return "## Results\n\n" + markdown_table(header, rows)


def _result_files(place: Path) -> list[Path]:
    require(place, "results")
    files = sorted(place.rglob("results.json")) if place.is_dir() else [place]
    if not files:
        raise RequestError(f"{place}: no results.json in it; expected a folder that python -m eval.nli wrote")
    return files


def _read_result(file: Path) -> dict[str, Any]:
    fields = read_json(file)
    wanted = ("model", "set", "n", "accuracy", "ci95", "majority")
    missing = [key for key in wanted if not isinstance(fields, dict) or key not in fields]
    if missing or not isinstance(fields, dict):
        raise ContentError(f"{file}: no {', '.join(missing)}: not a results.json of python -m eval.nli")
    return fields


def _own_words(source: ExportSource) -> str:
    """Return what merge or fuse wrote about how the folder was made."""
    card = source.folder / "README.md"
    text = card.read_text(encoding="utf-8", errors="replace") if card.is_file() else ""
    if MARK not in text:
        return ""
    body = text.partition("---\n")[2].partition("\n---\n")[2].strip()
    return re.sub(r"^# ", "## ", body, count=1)
