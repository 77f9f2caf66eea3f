"""Upload to the Hugging Face hub: files by name, one commit, what has arrived is not sent twice."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click

from tuneyard.adapters import vllm
from tuneyard.adapters.card import CARD, card_body
from tuneyard.adapters.export.source import ExportSource, fused_base, licence_of
from tuneyard.adapters.output import TOKENIZER
from tuneyard.adapters.provenance import open_parts, read_provenance
from tuneyard.adapters.store import Adapter, name_of, note
from tuneyard.core.adapter_files import CONFIG, WEIGHTS_INDEX
from tuneyard.core.base_models import INDEX, open_base
from tuneyard.core.documents import dump_yaml, markdown_table
from tuneyard.core.errors import ContentError, RequestError, counted
from tuneyard.core.files import read_json, require, sha256
from tuneyard.core.manifest import MANIFEST, read_manifest
from tuneyard.core.training_run import run_of, training_data

CARRIED = ("LICENSE", "LICENSE.md", "LICENSE.txt", "NOTICE")
TOKEN_FIX = "export HF_TOKEN=… of an account that may write there, or run `hf auth login`"
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
$ llamafactory-cli chat {named}
{served}
```"""
Card = tuple[str, list[str]]  # a model card, and what could not be found out


def to_hub(source: ExportSource, options: Mapping[str, Any]) -> None:
    """Upload safetensors, configs, tokenizer and licence texts with a card, or print what would be sent."""
    from huggingface_hub.errors import HFValidationError
    from huggingface_hub.utils._validators import validate_repo_id

    repo, folder, adapter = options["repo"], source.folder, source.adapter
    try:
        validate_repo_id(repo)
    except HFValidationError as error:
        raise RequestError(f"--repo {repo!r}: expected OWNER/NAME: {error}") from error
    if "/" not in repo:
        raise RequestError(f"--repo {repo!r}: expected OWNER/NAME")
    card, notes = make_card(source, repo, options["license"], list(options["results"]))
    weights = [file.name for file in adapter.files] if adapter else list(open_base(folder).shards)
    names = [CONFIG if adapter else "config.json", *weights]
    optional = (WEIGHTS_INDEX,) if adapter else ("generation_config.json", INDEX)
    names += [name for name in (*optional, *TOKENIZER, *CARRIED) if (folder / name).is_file()]
    left_out = {path.name for path in folder.iterdir()} - {*names, CARD}
    for text in notes:
        note(text)
    for name in names:
        click.echo(f"{(folder / name).stat().st_size:>14,}  {name}")
    click.echo(f"{len(card.encode()):>14,}  README.md (the card)")
    if left_out:
        note(f"left out: {', '.join(sorted(left_out))}")
    if options["dry_run"]:
        click.echo(f"\n{card}\nnothing sent (--dry-run); would send to {repo}")
    else:
        click.echo(_send(repo, [folder / name for name in names], card, private=options["private"]))


def _send(repo: str, files: list[Path], card: str, *, private: bool) -> str:
    """Upload as one commit, so that the repository has the old files or all new ones; return its address.

    `RequestError` without token, network or permission. Files that arrived before are not sent twice.
    """
    import httpx
    from huggingface_hub import CommitOperationAdd, HfApi, constants, get_token
    from huggingface_hub.errors import HfHubHTTPError

    if constants.HF_HUB_OFFLINE:
        raise RequestError("HF_HUB_OFFLINE is set: unset it to upload; --dry-run shows what would be sent")
    if not get_token():
        raise RequestError(f"no token for the hub: {TOKEN_FIX}; --dry-run shows what would be sent")
    api = HfApi()
    additions = [CommitOperationAdd(file.name, file) for file in files]
    additions.append(CommitOperationAdd(CARD, card.encode()))
    again = "run the command again: what has arrived is not sent twice"
    try:
        api.create_repo(repo, private=private, exist_ok=True)
        message = f"Upload {files[0].parent.name} with Tuneyard"
        return str(api.create_commit(repo, additions, commit_message=message).commit_url)
    except HfHubHTTPError as error:
        status = error.response.status_code
        if status in (401, 403):
            raise RequestError(f"{repo}: the hub refuses the token ({status}): {TOKEN_FIX}") from error
        raise RequestError(f"{repo}: the hub answers {status}: {str(error).strip()}") from error
    except (httpx.TransportError, OSError) as error:
        raise RequestError(f"{api.endpoint}: cannot be reached ({error}); {again}") from error
    except RuntimeError as error:  # one file's upload failed; the cause says why
        raise RequestError(f"{error} ({error.__cause__}); {again}") from error
    except ValueError as error:  # the hub refuses the card's front matter, or a file
        raise RequestError(f"{repo}: the hub refuses it: {error}") from error


def make_card(source: ExportSource, name: str, licence: str | None, results: list[Path]) -> Card:
    """Return the hub's model card, as far as files tell; `licence` overrides what the base's say."""
    notes: list[str] = []
    adapter = source.adapter
    base = adapter.lora.base if adapter else fused_base(source.folder)
    on_hub = bool(base and re.fullmatch(r"[\w.-]+/[\w.-]+", base) and not Path(base).is_dir())
    fields, terms = _licence(source, licence, notes)
    page = fields.get("license_link", f"https://huggingface.co/{base}")
    terms += f", [stated there]({page})" if on_hub else ""
    head: dict[str, object] = {**fields, **({"base_model": base} if on_hub else {})}
    if not on_hub:
        notes.append(
            f"the base is named {base or 'nowhere'}, no hub id: those who download this cannot find it"
            + (f"; set base_model_name_or_path in {CONFIG}" if adapter else "")
        )
    head |= {
        "library_name": "peft" if adapter else "transformers",
        "pipeline_tag": "text-generation",
        "tags": ["lora", "tuneyard"] if adapter else ["tuneyard"],
    }
    shown = base or "BASE"
    shown = Path(shown).name if Path(shown).is_absolute() else shown
    runs = _runs(source.folder, name_of(source.folder), notes)
    data = [entry for run in runs.values() for entry in run.get("data") or [] if isinstance(entry, dict)]
    recipes = {name: run["settings"] for name, run in runs.items() if run.get("settings")}
    settings: dict[str, Any] = next(iter(recipes.values()), {})
    template = f" --template {settings['template']}" if settings.get("template") else ""
    if not recipes:
        notes.append("recipe not recorded beside the weights (training.json of `tuneyard recipe train`)")
    trained = ", ".join(dict.fromkeys(str(one["dataset"]) for one in data))
    rows = [["base", base or "not recorded"], ["licence of the base", terms], *_sizes(adapter)]
    sections = [
        f"# {name.rpartition('/')[2]}",
        f"{'A LoRA adapter for' if adapter else 'A full model: adapters fused into'} {shown}"
        f"{f', trained on {trained}' if trained else ''}.",
        markdown_table(["", ""], rows),
        _usage(source, name, shown, template),
        _data(data, notes),
        *(
            f"## Recipe{f' of {one}' if len(runs) > 1 else ''}\n\n```yaml\n{dump_yaml(recipe)}```"
            for one, recipe in recipes.items()
        ),
        _results(adapter, results, notes),
        _provenance(source.folder),
    ]
    text = f"---\n{dump_yaml(head)}---\n\n" + "\n\n".join(filter(None, sections)) + "\n"
    return text, notes


def _licence(source: ExportSource, stated: str | None, notes: list[str]) -> tuple[dict[str, str], str]:
    """Return the fields of the base's licence, and its name with where that is from."""
    if stated:
        return {"license": stated}, f"{stated} (as stated at export)"
    if found := licence_of(source):
        fields, file = found
        where = "the base's" if file.parent == source.base else "this folder's"
        return fields, f"{fields.get('license_name', fields['license'])} (from {where} {file.name})"
    notes.append("licence of the base unknown: state it with --license ID, e.g. apache-2.0")
    return {"license": "unknown"}, "unknown: look it up at the base before you use this model"


def _runs(folder: Path, name: str, notes: list[str]) -> dict[str, dict[str, Any]]:
    """The inputs of trainings by adapter name: the folder's own, or of the adapters merged or fused into it.

    Of an adapter that is gone or has changed, merge.json still names the datasets.
    """
    inputs = run_of(folder)
    if inputs:
        return {name: inputs}
    runs: dict[str, dict[str, Any]] = {}
    record = read_provenance(folder)
    for part in open_parts(record) if record else []:
        part_name = part.entry["name"]
        if part.adapter:
            of_part = _runs(part.adapter.folder, part.adapter.name, notes)
            if not of_part:
                notes.append(f"data and recipe of {part_name} in it not recorded")
            runs |= of_part
        elif part.entry["datasets"]:
            runs[part_name] = {"data": part.entry["datasets"]}
            notes.append(f"recipe of an adapter in it not known: {part.problem}")
        else:
            notes.append(f"data and recipe of an adapter in it not known: {part.problem}")
    datasets = training_data(folder)
    if datasets and not runs:
        runs[name] = {"data": datasets}
    return runs


def _sizes(adapter: Adapter | None) -> list[list[str]]:
    if adapter is None:
        return []
    layout = adapter.layout
    targets = sorted({module.rpartition(".")[2] for module in layout})
    ranks = sorted({module.rank for module in layout.values()})
    size = sum(module.rank * (module.inputs + module.outputs) for module in layout.values())
    rank = f"{ranks[0]}" if len(ranks) == 1 else f"{ranks[0]}–{ranks[-1]}"
    return [
        ["adapter", f"LoRA of rank {rank}, alpha {adapter.lora.alpha:g}, on {', '.join(targets)}"],
        ["parameters", f"{size:,} in {len(layout)} modules"],
        ["SHA-256 of the weights", f"`{adapter.weights_sha256}`"],
    ]


def _usage(source: ExportSource, repo: str, base: str, template: str) -> str:
    """Return how it is loaded: PEFT or transformers, LLaMA-Factory (`template`: the training's) and vLLM."""
    if source.adapter is None:
        named = f"--model_name_or_path {repo}{template}"
        return USAGE.format(
            peft="", model=repo, adapted="", tokenizer=repo, named=named, served=f"$ vllm serve {repo}"
        )
    rank = max(module.rank for module in source.adapter.layout.values())
    rank = vllm.max_rank(rank) or rank
    served = f"$ vllm serve {base} --enable-lora --max-lora-rank {rank} --lora-modules mine={repo}"
    return USAGE.format(
        peft="from peft import PeftModel\n",
        model=base,
        adapted=f'model = PeftModel.from_pretrained(model, "{repo}")\n',
        tokenizer=repo if (source.folder / "tokenizer_config.json").is_file() else base,
        named=f"--model_name_or_path {base} --adapter_name_or_path {repo}{template}",
        served=f"# {vllm.NO_FULL_TENSORS}" if source.adapter.full_tensors else served,
    )


def _data(listed: list[dict[str, Any]], notes: list[str]) -> str:
    if not listed:
        notes.append("data not recorded beside the weights (training.json of `tuneyard recipe train`)")
        return ""
    used = {entry["dataset"]: entry for entry in listed}.values()
    rows = []
    for entry in used:
        digest = f"`{entry['sha256']}`" if entry.get("sha256") else "not recorded"
        rows.append([entry["dataset"], _about(entry), digest])
    return "## Data\n\n" + markdown_table(["dataset", "what it is", "SHA-256"], rows)


def _about(entry: dict[str, Any]) -> str:
    """Return a set's description and rows from its manifest, if that is still the one of the training."""
    if "file" not in entry:
        return f"named in the {CARD} of LLaMA-Factory's training; its file is not recorded"
    path = Path(entry["file"])
    manifest = read_manifest(path.parent)
    if manifest is None or sha256(path.parent / MANIFEST) != entry.get("manifest_sha256"):
        return "its manifest is not there any more"
    file = manifest.files.get(path.name)
    if file is None or not file.rows:
        return manifest.about
    return f"{manifest.about}, {counted(file.rows, 'row')}"


def _results(adapter: Adapter | None, places: list[Path], notes: list[str]) -> str:
    """Return the results found under the given folders as a table; the hash tells those of this adapter."""
    files: list[Path] = []
    for place in places:
        require(place, "results")
        found = sorted(place.rglob("results.json")) if place.is_dir() else [place]
        if not found:
            raise RequestError(
                f"{place}: no results.json in it; expected a folder that tuneyard eval nli wrote"
            )
        files += found
    if not files:
        return ""
    rows, proved = [], False
    for file in files:
        fields: Any = read_json(file)
        wanted = ("model", "set", "n", "accuracy", "ci95", "majority")
        missing = [key for key in wanted if not isinstance(fields, dict) or key not in fields]
        if missing:
            raise ContentError(f"{file}: no {', '.join(missing)}: not a results.json of tuneyard eval nli")
        hashes = fields.get("hashes", {}).get("adapters", {})
        own = adapter is not None and adapter.digest in hashes.values()
        proved |= own
        low, high = fields["ci95"]
        shares = f"{fields['accuracy']:.1%}", f"{low:.1%}–{high:.1%}", f"{fields['majority']:.1%}"
        model = f"{fields['model']}{' (this adapter)' if own else ''}"
        rows.append([model, fields["set"], f"{fields['n']:,}", *shares])
    if adapter and not proved:
        notes.append("none of the results is of this adapter: their hashes are of other weights")
    header = ["model", "set", "examples", "accuracy", "95 % interval", "majority-class baseline"]
    return "## Results\n\n" + markdown_table(header, rows)


def _provenance(folder: Path) -> str:
    """How merge or fuse made the folder, "" for any other."""
    record = read_provenance(folder)
    return f"## {card_body(record).strip()}" if record else ""
