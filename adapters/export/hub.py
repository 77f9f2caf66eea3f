"""Upload to the Hugging Face Hub as one commit. Files that arrived before are not sent twice."""

import shlex
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from urllib.parse import quote

from tuneyard.adapters.export.readme import (
    has_body,
    is_unedited,
    missing_fields,
    read_card,
    refuse_facts,
    signed,
    users_card,
)
from tuneyard.adapters.export.source import CARRIED, ExportSource, fused_base, licence_of, open_export
from tuneyard.adapters.model.adapter import name_of, span
from tuneyard.adapters.model.lora import NOT_IN_VLLM, LoraAdapter, vllm_rank
from tuneyard.adapters.model.provenance import CARD, card_body, model_card, open_parts
from tuneyard.adapters.write.carried_tokenizer import PROMPT_FILES
from tuneyard.adapters.write.output import Written
from tuneyard.core.datasets.compiled import MANIFEST, read_manifest
from tuneyard.core.datasets.trained_examples import read_trained_rows, trained_rows_file
from tuneyard.core.documents import dump_yaml
from tuneyard.core.errors import ContentError, RequestError
from tuneyard.core.files import HUB_ID, require, sha256
from tuneyard.core.files.bounded_reading import read_text
from tuneyard.core.files.links import check_own_files
from tuneyard.core.language.message import _, counted, joined
from tuneyard.core.records.record import read_record
from tuneyard.core.records.results_record import ResultsRecord
from tuneyard.core.text.markdown import markdown_table
from tuneyard.core.text.quoting import (
    Markdown,
    markdown_block,
    markdown_code,
    markdown_text,
    one_line,
    python_text,
)
from tuneyard.core.text.secrets import hide_secrets
from tuneyard.core.training.training_run import (
    TRAINED_ROWS,
    card_hyperparameters,
    read_provenance,
    training_data,
    training_inputs,
)
from tuneyard.core.weights.adapter_files import CONFIG, WEIGHTS_INDEX, published_name
from tuneyard.core.weights.base_models import open_base
from tuneyard.core.weights.tensors import INDEX

TOKEN_FIX = _("export HF_TOKEN=… of an account that may write there, or run `hf auth login`")
USAGE = """## How to load it

```python
{peft}from transformers import AutoModelForCausalLM, AutoTokenizer

model = AutoModelForCausalLM.from_pretrained({model}, dtype="auto")
{adapted}tokenizer = AutoTokenizer.from_pretrained({tokenizer})
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


@dataclass(frozen=True, slots=True)
class HubRequest:
    """An `export --to hub` command: a model or an adapter by its reference, and the repository OWNER/NAME.

    `card` is a file to upload as README.md. `results` are folders for the card that is made otherwise.
    `with_fingerprints`: the hashes of the training rows are uploaded, too.
    """

    reference: str
    repo: str
    base: Path | None = None
    license: str | None = None
    results: Sequence[Path] = ()
    card: Path | None = None
    message: str | None = None
    private: bool = False
    with_fingerprints: bool = False


@dataclass(frozen=True, slots=True)
class Upload:
    """What goes to a repository. `facts` are the given options that only a made card can follow.

    `own_card` is the file of the user's card, None for a made one.
    """

    request: HubRequest
    files: list[Path]
    card: str
    own_card: Path | None
    message: str
    facts: list[str]
    notes: list[str]

    def lines(self) -> list[str]:
        """One line for each file with its size in bytes, the card last."""
        lines = [f"{file.stat().st_size:>14,}  {file.name}" for file in self.files]
        return [*lines, f"{len(self.card.encode()):>14,}  {CARD} ({self.own_card or 'the card'})"]


def export_to_hub(request: HubRequest) -> Written:
    """Upload safetensors, configs, tokenizer and licence texts with a card. The result has its address.

    There is no state: only the hub knows what it has. It takes each file once, and makes no commit if all
    are there.
    """
    planned = plan_upload(request)
    sent = send(planned)
    return replace(sent, notes=[*planned.notes, *sent.notes])


def plan_upload(request: HubRequest) -> Upload:
    """Check everything that can be checked here, and make the card."""
    source = open_export(request.reference, request.base, any_kind=False, publishes_base=False)
    repo, folder, adapter = request.repo, source.folder, source.lora
    if not HUB_ID.fullmatch(repo):
        raise RequestError(_("--repo {repo!r}: expected OWNER/NAME", repo=repo))
    own_card = users_card(folder, request.card)
    options = {"--results": request.results, "--license": request.license}
    facts = [option for option, value in options.items() if value]
    if own_card:
        refuse_facts(str(own_card), facts)
        card, notes = read_card(own_card), _notes_on(own_card)
        if request.card is None:
            notes.append(_("{path} is uploaded unchanged, since no program wrote it", path=own_card))
    else:
        made, notes = make_card(source, repo, request.license, list(request.results))
        card = signed(made)
    message = request.message
    if message is None:
        message = f"Upload {name_of(folder)} with Tuneyard"
    elif not message.strip():
        raise RequestError(_("--message: found an empty text, expected the message of the commit"))
    if adapter:
        names = [CONFIG, *(file.name for file in adapter.files)]
        optional = [WEIGHTS_INDEX]
    else:
        names = ["config.json", *open_base(folder).shards]
        optional = [INDEX]
    names += [name for name in (*optional, *PROMPT_FILES, *CARRIED) if (folder / name).is_file()]
    check_own_files(folder, names)
    left_out = {path.name for path in folder.iterdir()} - {*names, CARD}
    if request.with_fingerprints:
        left_out.discard(TRAINED_ROWS)
    if left_out:
        notes.append(_("not uploaded: {names}", names=", ".join(sorted(left_out))))
    files = [folder / name for name in names]
    if request.with_fingerprints:
        files.append(_fingerprints(folder))
    return Upload(request, files, card, own_card, message, facts, notes)


def _fingerprints(folder: Path) -> Path:
    """The file of fingerprints of the training rows. `RequestError` without one, `ContentError` if broken."""
    read_trained_rows(folder)
    path = trained_rows_file(folder)
    if path is None:
        raise RequestError(
            _(
                "{folder}: no {file} of `tuneyard recipe train` here; leave --with-fingerprints out",
                folder=folder,
                file=TRAINED_ROWS,
            )
        )
    return path


def _notes_on(card: Path) -> list[str]:
    """What the hub's page lacks if the user's card does not state it."""
    missing = missing_fields(card, ("license", "base_model"))
    return [
        _(
            "{path}: no `{field}` in its front matter: the hub's page shows none; add it",
            path=card,
            field=field,
        )
        for field in missing
    ]


def send(upload: Upload) -> Written:
    """Upload as one commit, so that the repository has the old files or all new ones.

    The line of the result is the address of the commit. A made card does not replace one that was edited on
    the hub. `RequestError` without token, network or permission. Files that arrived before are not sent
    twice.
    """
    import httpx
    from huggingface_hub import CommitOperationAdd, HfApi, constants, get_token
    from huggingface_hub.errors import HfHubHTTPError

    if constants.HF_HUB_OFFLINE:
        raise RequestError(_("HF_HUB_OFFLINE is set: unset it to upload; --dry-run shows what would be sent"))
    if not get_token():
        raise RequestError(
            _("no token for the hub: {fix}; --dry-run shows what would be sent", fix=TOKEN_FIX)
        )
    api, repo = HfApi(), upload.request.repo
    notes: list[str] = []
    additions = [CommitOperationAdd(file.name, file) for file in upload.files]
    title, _unused, description = upload.message.partition("\n")
    again = _("run the command again: what has arrived is not sent twice")
    try:
        api.create_repo(repo, private=upload.request.private, exist_ok=True)
        if upload.own_card is None and _has_users_card(repo):
            refuse_facts(_("{repo}/{card} on the hub", repo=repo, card=CARD), upload.facts)
            notes.append(
                _(
                    "{repo}/{card} on the hub was written or edited by hand: kept; --card FILE replaces it",
                    repo=repo,
                    card=CARD,
                )
            )
        else:
            additions.append(CommitOperationAdd(CARD, upload.card.encode()))
        commit = api.create_commit(
            repo, additions, commit_message=title, commit_description=description.strip()
        )
        return Written(Path(repo), [str(commit.commit_url)], notes)
    except HfHubHTTPError as error:
        status = error.response.status_code
        if status in (401, 403):
            raise RequestError(
                _(
                    "{repo}: the hub refuses the token ({status}): {hint}",
                    repo=repo,
                    status=status,
                    hint=TOKEN_FIX,
                )
            ) from error
        message = _(
            "{repo}: the hub answers {status}: {reason}", repo=repo, status=status, reason=str(error).strip()
        )
        raise RequestError(hide_secrets(message)) from error
    except (httpx.TransportError, OSError) as error:
        message = _(
            "{endpoint}: cannot be reached ({error}); {hint}", endpoint=api.endpoint, error=error, hint=again
        )
        raise RequestError(hide_secrets(message)) from error
    except RuntimeError as error:  # one file's upload failed; the cause says why
        raise RequestError(hide_secrets(f"{error} ({error.__cause__}); {again}")) from error
    except ValueError as error:  # the hub refuses the card's front matter, or a file
        raise RequestError(_("{repo}: the hub refuses it: {error}", repo=repo, error=error)) from error


def _has_users_card(repo: str) -> bool:
    """True if the repository has a README.md with a text that this command did not write."""
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import RemoteEntryNotFoundError

    try:
        text = read_text(Path(hf_hub_download(repo, CARD)), "replace")
    except RemoteEntryNotFoundError:
        return False
    return has_body(text) and not is_unedited(text)


def make_card(
    source: ExportSource, name: str, licence: str | None, results: list[Path]
) -> tuple[str, list[str]]:
    """Write the hub's model card from recorded facts, and list notes on missing ones.

    `licence` overrides the files of the base.
    """
    notes: list[str] = []
    adapter = source.lora
    base = adapter.config.base if adapter else fused_base(source.folder)
    head, terms = _licence(source, licence, notes)
    on_hub = bool(base and HUB_ID.fullmatch(base) and not Path(base).is_dir())
    if on_hub:
        page = head.get("license_link", f"https://huggingface.co/{base}")
        terms += f", [stated there](<{quote(str(page), safe=':/?&=#%+,;@~.')}>)"
        head["base_model"] = base
    else:
        message = _(
            "the base is named {name}, no hub id: nobody can download it by this name",
            name=base or _("nowhere"),
        )
        if adapter:
            message = _("{problem}; set base_model_name_or_path in {file}", problem=message, file=CONFIG)
        notes.append(message)
    base_label = one_line(base or "BASE")
    if Path(base_label).is_absolute() or "\\" in base_label:
        base_label = published_name(base_label)
    inputs_by_name = _training_inputs(source.folder, name_of(source.folder), notes)
    datasets = []
    recipes: dict[str, dict[str, Any]] = {}
    for adapter_name, inputs in inputs_by_name.items():
        datasets += inputs.get("data", [])
        if inputs.get("settings"):
            recipes[adapter_name] = inputs["settings"]
    listed: dict[str, str] = {}
    if not recipes:
        listed = card_hyperparameters(source.folder)
        note_on_recipe = _(
            "recipe not recorded next to the weights (training.json of `tuneyard recipe train`)"
        )
        if listed:
            note_on_recipe = _(
                "{problem}; the card has the hyperparameters that LLaMA-Factory's {file} lists",
                problem=note_on_recipe,
                file=CARD,
            )
        notes.append(note_on_recipe)
    facts: list[list[str]] = [["base", base or "not recorded"], ["licence of the base", Markdown(terms)]]
    if adapter:
        head |= {"library_name": "peft", "pipeline_tag": "text-generation", "tags": ["lora", "tuneyard"]}
        sentence = f"A LoRA adapter for {markdown_text(base_label)}"
        facts += _sizes(adapter)
    else:
        head |= {"library_name": "transformers", "pipeline_tag": "text-generation", "tags": ["tuneyard"]}
        sentence = f"A full model: adapters fused into {markdown_text(base_label)}"
    if datasets:
        names = dict.fromkeys(str(entry["dataset"]) for entry in datasets)
        sentence += f", trained on {', '.join(map(markdown_text, names))}"
    template: list[str] = []
    first_recipe: dict[str, Any] = next(iter(recipes.values()), {})
    if first_recipe.get("template"):
        template = ["--template", one_line(str(first_recipe["template"]))]
    sections = [
        f"# {markdown_text(name.rpartition('/')[2])}",
        f"{sentence}.",
        markdown_table(["", ""], facts),
        _usage(source, name, base_label, template),
        _data(datasets, notes),
    ]
    for adapter_name, settings in recipes.items():
        title = "Recipe"
        if len(inputs_by_name) > 1:
            title = f"Recipe of {markdown_text(adapter_name)}"
        sections.append(f"## {title}\n\n{markdown_block(dump_yaml(settings), 'yaml')}")
    if listed:
        table = markdown_table(["hyperparameter", "value"], list(listed.items()))
        origin = f"As LLaMA-Factory's {CARD} lists it; its recipe is not recorded."
        sections.append(f"## Training\n\n{origin}\n\n{table}")
    sections.append(_results(adapter, results, notes))
    record = read_provenance(source.folder)
    if record:
        sections.append(f"## {card_body(record).strip()}")
    body = "\n\n".join(section for section in sections if section)
    return hide_secrets(model_card(head, f"{body}\n")), notes


def _licence(source: ExportSource, stated: str | None, notes: list[str]) -> tuple[dict[str, object], str]:
    """The fields of the base's licence for the front matter, and a sentence with its origin."""
    if stated:
        return {"license": stated}, f"{markdown_text(stated)} (as stated at export)"
    licence = licence_of(source)
    if licence is None:
        notes.append(_("licence of the base unknown: state it with --license ID, e.g. apache-2.0"))
        return {"license": "unknown"}, "unknown: look it up at the base before you use this model"
    fields, file = licence
    owner = "this folder's"
    if file.parent == source.base:
        owner = "the base's"
    name = fields.get("license_name", fields["license"])
    return dict(fields), f"{markdown_text(name)} (from {owner} {file.name})"


def _training_inputs(folder: Path, name: str, notes: list[str]) -> dict[str, dict[str, Any]]:
    """Inputs of trainings by adapter name: of the folder, or of the adapters merged or fused into it.

    If an adapter is gone or has changed, merge.json still names its datasets.
    """
    inputs = training_inputs(folder)
    if inputs:
        return {name: inputs}
    inputs_by_name: dict[str, dict[str, Any]] = {}
    record = read_provenance(folder)
    parts = []
    if record:
        parts = open_parts(record)
    for part in parts:
        part_name = part.entry["name"]
        if part.adapter:
            of_part = _training_inputs(part.adapter.folder, part.adapter.name, notes)
            if not of_part:
                notes.append(_("data and recipe of {name} in it not recorded", name=part_name))
            inputs_by_name |= of_part
            continue
        unknown = _("data and recipe of an adapter in it not known: {reason}", reason=part.problem)
        if part.entry["datasets"]:
            inputs_by_name[part_name] = {"data": part.entry["datasets"]}
            unknown = _("recipe of an adapter in it not known: {reason}", reason=part.problem)
        notes.append(unknown)
    datasets = training_data(folder)
    if datasets and not inputs_by_name:
        inputs_by_name[name] = {"data": datasets}
    return inputs_by_name


def _sizes(adapter: LoraAdapter) -> list[list[str]]:
    layout = adapter.modules
    targets = sorted({module.rpartition(".")[2] for module in layout})
    rank = span([module.rank for module in layout.values()])
    return [
        ["adapter", f"LoRA of rank {rank}, alpha {adapter.config.alpha:g}, on {', '.join(targets)}"],
        ["parameters", f"{adapter.parameters:,} in {len(layout)} modules"],
        ["SHA-256 of the weights", markdown_code(adapter.weights_sha256)],
    ]


def _usage(source: ExportSource, repo: str, base: str, template: list[str]) -> str:
    """Code and commands that load the model: PEFT or transformers, LLaMA-Factory and vLLM."""
    adapter = source.lora
    if adapter is None:
        return USAGE.format(
            peft="",
            model=python_text(repo),
            adapted="",
            tokenizer=python_text(repo),
            named=shlex.join(["--model_name_or_path", repo, *template]),
            served=f"$ {shlex.join(['vllm', 'serve', repo])}",
        )
    rank = vllm_rank(adapter.largest_rank) or adapter.largest_rank
    words = ["vllm", "serve", base, "--enable-lora", "--max-lora-rank", str(rank)]
    served = f"$ {shlex.join([*words, '--lora-modules', f'mine={repo}'])}"
    if adapter.full_tensors:
        served = f"# {NOT_IN_VLLM}"
    tokenizer = base
    if (source.folder / "tokenizer_config.json").is_file():
        tokenizer = repo
    return USAGE.format(
        peft="from peft import PeftModel\n",
        model=python_text(base),
        adapted=f"model = PeftModel.from_pretrained(model, {python_text(repo)})\n",
        tokenizer=python_text(tokenizer),
        named=shlex.join(["--model_name_or_path", base, "--adapter_name_or_path", repo, *template]),
        served=served,
    )


def _data(datasets: list[dict[str, Any]], notes: list[str]) -> str:
    if not datasets:
        notes.append(_("data not recorded next to the weights (training.json of `tuneyard recipe train`)"))
        return ""
    rows = []
    for entry in {entry["dataset"]: entry for entry in datasets}.values():
        digest = "not recorded"
        if entry.get("sha256"):
            digest = markdown_code(str(entry["sha256"]))
        rows.append([entry["dataset"], _about(entry), digest])
    return "## Data\n\n" + markdown_table(["dataset", "description", "SHA-256"], rows)


def _about(entry: dict[str, Any]) -> str:
    """Description and rows of a dataset from its manifest, if the manifest is still that of the training."""
    if "file" not in entry:
        return f"named in the {CARD} of LLaMA-Factory's training; its file is not recorded"
    path = Path(entry["file"])
    manifest = read_manifest(path.parent)
    if manifest is None or sha256(path.parent / MANIFEST) != entry.get("manifest_sha256"):
        return "its manifest is gone or has changed"
    file = manifest.files.get(path.name)
    if file is None or not file.rows:
        return manifest.about
    return f"{manifest.about}, {counted(file.rows, 'row', 'rows')}"


def _results(adapter: LoraAdapter | None, places: list[Path], notes: list[str]) -> str:
    """Table of the results in the given folders. The hash identifies those of this adapter."""
    files: list[Path] = []
    for place in places:
        require(place, "results")
        of_place = [place]
        if place.is_dir():
            held_out = place / "held-out"  # of a sweep: nothing was chosen on these rows
            of_place = sorted((held_out if held_out.is_dir() else place).rglob("results.json"))
        if not of_place:
            raise RequestError(
                _(
                    "{place}: no results.json in it; expected a folder that tuneyard eval nli wrote",
                    place=place,
                )
            )
        files += of_place
    if not files:
        return ""
    rows, is_of_adapter = [], False
    for file in files:
        results = read_record(file, ResultsRecord)
        accuracy, ci95, majority = results.get("accuracy"), results.get("ci95"), results.get("majority")
        if accuracy is None or ci95 is None or majority is None or "n" not in results:
            lacking = [key for key in ("n", "accuracy", "ci95", "majority") if results.get(key) is None]
            raise ContentError(
                _(
                    "{file}: no {keys}: expected results with an accuracy, as of tuneyard eval nli",
                    file=file,
                    keys=joined(lacking),
                )
            )
        model = results["model"]
        is_alone = set(results.get("weights", {}).values()) <= {1.0}
        digests = list(results.get("hashes", {}).get("adapters", {}).values())
        if adapter and is_alone and digests == [adapter.digest]:
            model = f"{model} (this adapter)"
            is_of_adapter = True
        low, high = ci95
        shares = f"{accuracy:.1%}", f"{low:.1%}–{high:.1%}", f"{majority:.1%}"
        rows.append([model, results["dataset"], f"{results['n']:,}", *shares])
    if adapter and not is_of_adapter:
        notes.append(_("none of the results is of this adapter: their hashes are of other weights"))
    header = ["model", "dataset", "examples", "accuracy", _("95 % interval"), _("majority-class baseline")]
    return "## Results\n\n" + markdown_table(header, rows)
