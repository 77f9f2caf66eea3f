"""The names of an adapter's tensors: those that PEFT reads, and other ones that mean the same.

PEFT reads no name that it does not expect. It then leaves the adapter at its start, with a warning at most.
`tuneyard adapter rename` writes a copy with PEFT's names, which every command reads.
"""

import re
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path

from tuneyard.core.errors import ContentError
from tuneyard.core.language.message import _, typed
from tuneyard.core.weights.adapter_files import PREFIX, ChangedModule, Shape, open_weight_files
from tuneyard.core.weights.tensors import Weights

# Parts of names that wrappers of a model add, anywhere and as the first part.
WRAPPERS = {
    "_orig_mod": "torch.compile",
    "_fsdp_wrapped_module": "FSDP",
    "_checkpoint_wrapped_module": "gradient checkpointing",
    "_forward_module": "Lightning",
}
FIRST_WRAPPERS = {"module": "DDP or DeepSpeed", "pretrained_model": "TRL's value head"}
# In a live model the name of the adapter is a part: lora_A.default.weight. PEFT saves lora_A.weight.
ADAPTER_NAMES = (
    (re.compile(r"\.(lora_[AB]|oft_R)\.[^.]+\.weight$"), r".\1.weight"),
    (re.compile(r"\.(lora_embedding_[AB])\.[^.]+$"), r".\1"),
    (re.compile(r"\.(lora_magnitude_vector)(\.[^.]+)?\.weight$"), r".\1"),
    (re.compile(r"\.modules_to_save\.[^.]+\.(weight|bias)$"), r".\1"),
)
# First parts of a module's path that depend on the class of a model: the same layers are model.layers in a
# text model, model.language_model.layers or language_model.model.layers in one with images, layers in a model
# without a head.
FRONTS = {"model", "language_model", "text_model", "transformer", "thinker"}


def open_adapter_weights(folder: Path) -> Weights:
    """As `open_weight_files`; `ContentError` for names that PEFT does not read."""
    weights = open_weight_files(folder)
    check_names(weights.path, weights.tensors)
    return weights


def peft_name(name: str) -> str:
    """The name under which PEFT reads a tensor of an adapter; most often `name` itself."""
    parts = [part for part in name.split(".") if part not in WRAPPERS]
    plain = ".".join(parts)
    plain = plain[plain.rfind(PREFIX) :].removeprefix(PREFIX) if PREFIX in plain else plain
    while plain.partition(".")[0] in FIRST_WRAPPERS:
        plain = plain.partition(".")[2]
    plain = PREFIX + plain
    for pattern, replacement in ADAPTER_NAMES:
        plain = pattern.sub(replacement, plain)
    return plain


def check_names(path: Path, names: Iterable[str]) -> None:
    """`ContentError` if the weights in the file `path` have a name that PEFT does not read."""
    for name in names:
        plain = peft_name(name)
        if plain == name:
            continue
        tools = [tool for part, tool in (WRAPPERS | FIRST_WRAPPERS).items() if part in name.split(".")]
        cause = _("the name is of another program")
        if tools:
            cause = _("the name has a part of {tool}", tool=tools[0])
        elif not name.startswith(PREFIX):
            cause = _("expected names that begin with {prefix!r}", prefix=PREFIX)
        elif name.startswith(PREFIX * 2):
            cause = _("the name has {prefix!r} twice", prefix=PREFIX)
        elif name.count(".") > plain.count("."):
            cause = _("the name has the adapter's own name, as in a live model")
        raise ContentError(
            _(
                "{path}: {name}: {cause}. PEFT reads {plain}, and would leave the adapter at zero; "
                "expected PEFT's names: {rename_command}",
                path=path,
                name=name,
                cause=cause,
                plain=plain,
                rename_command=typed(rename_command(path.parent)),
            )
        )


def rename_command(folder: Path, base: str = "") -> list[str]:
    """Words of the command that writes a copy of an adapter with PEFT's names, or with those of a base."""
    word = str(folder)
    words = ["tuneyard", "adapter", "rename", word if "/" in word else f"./{word}"]
    if base:
        words += ["--base", base]
    return [*words, "--out", f"{word.rstrip('/')}-renamed"]


def core_of(path: str) -> str:
    """The path of a module without the parts in front that depend on the model's class."""
    parts = path.split(".")
    while len(parts) > 1 and parts[0] in FRONTS:
        del parts[0]
    return ".".join(parts)


def paths_in_base(paths: Iterable[str], base_paths: Collection[str]) -> Mapping[str, str]:
    """The path in the base of each module of an adapter, if only the parts in front differ; {} otherwise.

    {} also if the base has all paths as they are, or two modules that differ only in the parts in front.
    """
    by_core: dict[str, set[str]] = {}
    for path in base_paths:
        by_core.setdefault(core_of(path), set()).add(path)
    in_base = {}
    differs = False
    for path in paths:
        if path in base_paths:
            in_base[path] = path
            continue
        candidates = by_core.get(core_of(path), set())
        if len(candidates) != 1:
            return {}
        (in_base[path],) = candidates
        differs = True
    return in_base if differs else {}


def misnaming(
    folder: Path, modules: Mapping[str, ChangedModule], shapes: Mapping[str, Shape | None], base: object
) -> str:
    """Reason why an adapter does not fit a base that has its modules under other names; "" otherwise.

    `shapes` are those of the base's weights by module. Modules of other shapes are another base's.
    """
    in_base = paths_in_base(modules, shapes.keys())
    if any(modules[path].mismatch(path, shapes[other], base) for path, other in in_base.items()):
        return ""
    for path, other in in_base.items():
        if path != other:
            command = typed(rename_command(folder, str(base)))
            return _(
                "{path} is called {other} in {base}: trained with another class of the "
                "model; expected the names of the base: {command}",
                path=path,
                other=other,
                base=base,
                command=command,
            )
    return ""
