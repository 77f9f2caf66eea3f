"""The backend of transformers: a model in this process, loaded from a folder, the hub or a GGUF."""

import contextlib
import importlib.util
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tuneyard.adapters.model.store import SAVES, adapters_in
from tuneyard.core.errors import ContentError, RequestError
from tuneyard.core.files import read_object
from tuneyard.core.files.bounded_reading import open_regular
from tuneyard.core.files.hub import from_hub
from tuneyard.core.installation.packages import missing
from tuneyard.core.language.message import _, joined
from tuneyard.core.llamafactory.loader import replaced
from tuneyard.core.llamafactory.prompt import Encode, Messages, Tokenizer
from tuneyard.core.llamafactory.prompt.supervision import SupervisedText
from tuneyard.core.llamafactory.prompt.tokenizer_files import check_tokenizer_files
from tuneyard.core.weights.adapter_files import refuse_adapter
from tuneyard.core.weights.dtypes import DTYPES
from tuneyard.core.weights.tensors import check_headers
from tuneyard.eval.models import NO_LIMIT, Backend, Network, loading
from tuneyard.eval.models.apply import applied
from tuneyard.eval.models.batch_plan import Batches, Ids, Images, Prompts, Reading, plan_batches
from tuneyard.eval.models.generate import draw, generate
from tuneyard.eval.models.gguf_tokens import check_fields, read_tokens
from tuneyard.eval.models.likelihood import LogProbabilities, token_losses
from tuneyard.eval.models.vision import open_vision

if TYPE_CHECKING:
    from transformers import GenerationConfig, PreTrainedModel

    from tuneyard.adapters.model.weighted import WeightedAdapter

WEIGHTS = "*.safetensors"
OF_TOKENIZER = ("*.json", "*.jinja", "*.model", "*.txt")
FILES = (WEIGHTS, *OF_TOKENIZER)
"""The files of a model or an adapter that are read."""
GENERATION = "generation_config.json"
TOKENIZERS = ("tokenizer.json", "tokenizer.model", "vocab.json", "tokenizer_config.json")
# in a GGUF, the key general.type: 8 is a text, 7 its length
GGUF_ADAPTER = b"general.type\x08\0\0\0\x07\0\0\0\0\0\0\0adapter"
GGUF_HEAD = 4096  # bytes in which the key is found: it follows the architecture
SHARED, CHANGED = 8, 8  # tokens that both texts begin with, and tokens after them that differ
EXACT = 1e-3  # in fp32, whose sums differ by some 1e-6
ROUNDED = 0.2  # where weights or sums are rounded: the experts of a mixture, columns in 8 bits


@dataclass(slots=True, eq=False)
class Applied:
    """The adapters that are applied to a model, None before the first, and how to take them off."""

    adapters: "Sequence[WeightedAdapter] | None" = None
    undo: contextlib.ExitStack = field(default_factory=contextlib.ExitStack)


@dataclass(eq=False)
class Model(Network):
    """A causal language model in eval mode, with its tokenizer and the settings that the results record.

    - `alone`: batching or a shared cache would change its answers, so every prompt goes through it whole and
      by itself. Its `budget` is 1 then, also with --batch-tokens.
    - `vision`: the image processor, if rows have images.
    """

    net: "PreTrainedModel"
    alone: bool = False
    applied: Applied = field(default_factory=Applied)

    def seeing(self, template: str, think: bool, pixels: Mapping[str, int]) -> "Model":
        """The same model, which is shown images: rows go through it one at a time."""
        vision = open_vision(self.net, self.tokenizer, template, think, pixels)
        return replace(self, alone=True, vision=vision, budget=1, settings=vision.settings)

    def apply(self, adapters: "Sequence[WeightedAdapter]") -> None:
        """Take off the adapters of the last call and apply these, unless they are the same."""
        if adapters is self.applied.adapters:
            return
        self.applied.adapters = None
        self.applied.undo.close()
        self.applied.undo = applied(self, adapters, merged=self.merged)
        self.applied.adapters = adapters

    def reading(
        self,
        prompts: Prompts,
        spellings: Sequence[Ids],
        images: Images,
    ) -> Reading:
        """Plan batches, longest first, and give the log-probabilities of the spellings' tokens."""
        probabilities = LogProbabilities(self, prompts, spellings, images)
        return probabilities.batches, probabilities.score

    def token_losses(self, texts: Mapping[int, SupervisedText]) -> dict[int, list[float]]:
        """-log p in nats of each loss token of each row."""
        return token_losses(self, texts, self.budget)

    def batches(self, lengths: Mapping[int, int]) -> Batches:
        """Batches of rows, longest first."""
        # one by one where they are drawn: an answer then depends on its own prompt alone
        return plan_batches(lengths, 1 if self.draws else self.budget)

    def chat(self, talks: Mapping[int, Messages], encode: Encode, longest: int) -> list[str]:
        """Answer each conversation, greedily or as the model's settings draw."""
        prompts = [encode(talk) for talk in talks.values()]
        if self.draws:
            return [draw(self, prompt, longest, self.sampling, self.seed) for prompt in prompts]
        return [answer.text for answer in generate(self, prompts, longest)]


def in_this_process(backend: Backend) -> Model:
    """The backend as the model in this process; `RequestError` for the others."""
    if not isinstance(backend, Model):
        raise backend.needs_model()
    return backend


def find_model(reference: str) -> Path:
    """Find the folder of a model, or download a hub id.

    `RequestError` if it is not a model folder, `ContentError` without safetensors.
    """
    folder = Path(reference)
    if not folder.is_dir():
        refuse_adapter(SAVES / reference)
        folder = from_hub(reference, _("give a local model folder"), allow_patterns=list(FILES))
    refuse_adapter(folder)
    if not (folder / "config.json").is_file():
        hint = adapters_in(folder)
        raise RequestError(
            _(
                "{folder}: no config.json: not a model folder; name one, or OWNER/NAME on the hub{hint}",
                folder=folder,
                hint=hint,
            )
        )
    if not any(folder.glob(WEIGHTS)):
        raise ContentError(
            _(
                "{folder}: no {names}: only safetensors weights are read, convert the model",
                folder=folder,
                names=WEIGHTS,
            )
        )
    check_tokenizer_files(folder)
    check_headers(folder)
    return folder


def load_model(folder: Path, dtype: str | None, bits: int | None = None) -> Model:
    """Load a model, its linears in `bits`, by default fp32 (bf16 on GPU).

    `ContentError` if it is broken, or if its predictions depend on the tokens that follow.
    """
    import torch
    from transformers import utils

    utils.is_sklearn_available = lambda: False  # 3 s of imports for assisted decoding, which nobody asks for
    from transformers import AutoConfig, AutoTokenizer, GenerationConfig

    utils.logging.set_verbosity_error()
    utils.logging.disable_progress_bar()
    device = "cuda" if torch.cuda.is_available() else "cpu"
    dtype = dtype or ("fp32" if device == "cpu" else "bf16")
    with loading(folder):
        config = AutoConfig.from_pretrained(folder, trust_remote_code=False)  # else it asks the user
        tokenizer = AutoTokenizer.from_pretrained(folder, config=config, trust_remote_code=False)
        net = _kind(config).from_pretrained(
            folder,
            config=config,
            trust_remote_code=False,
            dtype=getattr(torch, DTYPES[dtype].torch),
            use_safetensors=True,
            **(_quantized(bits, DTYPES[dtype].torch, device) if bits else {}),
        )
    net = (net if bits else net.to(device)).eval().requires_grad_(False)
    sampling = _sampling(net.generation_config)
    net.generation_config = GenerationConfig(  # greedy as it stands: no penalties that a model ships
        eos_token_id=_ends(tokenizer, net.generation_config.eos_token_id),
        pad_token_id=tokenizer.pad_token_id if tokenizer.pad_token_id is not None else tokenizer.eos_token_id,
    )
    limit = getattr(net.config.get_text_config(), "max_position_embeddings", None)
    with loading(folder, _("cannot be prompted with text")):
        attends = _attends(net, device)
        check_causal(net, folder, exact=dtype == "fp32" and not bits)
    alone = bits == 8 or not attends  # LLM.int8() takes outliers by column of the whole batch
    return Model(
        net,
        alone,
        folder=folder,
        tokenizer=tokenizer,
        ends=net.generation_config.eos_token_id,
        context=limit or NO_LIMIT,
        vocabulary=net.get_input_embeddings().num_embeddings,
        budget=int(alone),
        dtype=dtype,
        device=device,
        sampling=sampling,
    )


def load_without_weights(folder: Path, dtype: str) -> "PreTrainedModel":
    """A model's modules with shapes but without values (device `meta`)."""
    import torch
    from transformers import AutoConfig, utils

    utils.logging.set_verbosity_error()
    with loading(folder), torch.device("meta"):
        config = AutoConfig.from_pretrained(folder, trust_remote_code=False)
        net: PreTrainedModel = _kind(config).from_config(config, dtype=getattr(torch, DTYPES[dtype].torch))
    return net


def open_tokenizer(reference: str) -> "tuple[Tokenizer, list[int]]":
    """The tokenizer of a model folder or hub id without its weights, and the end tokens.

    `RequestError` if there is none, `ContentError` if it is broken.
    """
    folder = Path(reference)
    if not folder.is_dir():
        fix = _(
            "--model names the served model's tokenizer, a folder or hub id; --served-model its name there"
        )
        folder = from_hub(reference, fix, allow_patterns=list(OF_TOKENIZER))
    if not any((folder / name).is_file() for name in TOKENIZERS):
        raise RequestError(
            _(
                "{folder}: no {names}: --model names the tokenizer's folder",
                folder=folder,
                names=joined(TOKENIZERS, _(" or ")),
            )
        )
    check_tokenizer_files(folder)
    from transformers import AutoTokenizer

    with loading(folder):
        tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
    listed = None
    for name in (GENERATION, "config.json"):  # as transformers: the second where there is no first
        if (folder / name).is_file():
            listed = read_object(folder / name).get("eos_token_id")
            break
    return tokenizer, _ends(tokenizer, listed)


def _ends(tokenizer: Tokenizer, listed: object) -> list[int]:
    """The tokens that end an answer: the tokenizer's, and the one or those that a model lists, if any."""
    others = listed if isinstance(listed, list) else [listed]
    return sorted({tokenizer.eos_token_id, *others} - {None})


def _kind(config: Any) -> Any:
    """Choose the class that loads a model: the one for texts, otherwise the one for images and texts."""
    from transformers import AutoModelForCausalLM, AutoModelForImageTextToText
    from transformers.models.auto import modeling_auto

    sees = config.model_type in modeling_auto.MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES
    reads = config.model_type in modeling_auto.MODEL_FOR_CAUSAL_LM_MAPPING_NAMES
    return AutoModelForImageTextToText if sees and not reads else AutoModelForCausalLM


def check_gguf(path: Path) -> None:
    """Raise `RequestError` unless the file is the GGUF of a whole model and the reader is installed.

    `ContentError` for fields that do not fit into the file.
    """
    head = b""
    if path.is_file():
        with open_regular(path) as file:
            head = file.read(GGUF_HEAD)
    if not head.startswith(b"GGUF"):
        raise RequestError(_("{path}: no GGUF file; tuneyard adapter export --to gguf writes one", path=path))
    if GGUF_ADAPTER in head:
        raise RequestError(
            _(
                "{path}: a LoRA adapter; expected a whole model: tuneyard adapter fuse, then adapter export",
                path=path,
            )
        )
    if importlib.util.find_spec("gguf") is None:
        raise RequestError(_("reading GGUF: {reason}", reason=missing("gguf")))
    check_fields(path)


def load_gguf(path: Path, like: Model) -> Model:
    """Load a GGUF with dtype, device and tokenizer of `like`, and the end tokens of the file.

    `ContentError` if transformers cannot.
    """
    import torch
    from transformers import AutoModelForCausalLM

    options = {"gguf_file": path.name, "dtype": getattr(torch, DTYPES[like.dtype].torch)}
    with loading(path, _("transformers cannot read it")), _parsed_once():
        net = AutoModelForCausalLM.from_pretrained(path.parent, trust_remote_code=False, **options)
        ends = read_tokens(path).ends
    net = net.to(like.device).eval().requires_grad_(False)
    check_causal(net, path, exact=like.dtype == "fp32")
    net.generation_config = like.net.generation_config
    return replace(like, net=net, ends=ends, applied=Applied())


def load_gguf_tokenizer(path: Path) -> Tokenizer:
    """Load the tokenizer and chat template in a GGUF. `ContentError` if transformers cannot.

    transformers 5.6 leaves the file's own special tokens in pieces, except a few of each architecture.
    """
    from transformers import AddedToken, AutoTokenizer

    with loading(path, _("transformers cannot read its tokenizer")), _parsed_once():
        tokenizer = AutoTokenizer.from_pretrained(path.parent, gguf_file=path.name, trust_remote_code=False)
        whole = read_tokens(path).whole
    missing_tokens = []
    for number, (text, is_special) in whole.items():
        if number not in tokenizer.added_tokens_decoder:
            missing_tokens.append(AddedToken(text, special=is_special, normalized=False))
    tokenizer.add_tokens(missing_tokens)
    return tokenizer


@cache  # `eval prove` loads the tokenizer of a GGUF in one block and the model in another
def _parsed_once() -> contextlib.AbstractContextManager[object]:
    """Let transformers parse a GGUF and name its tensors once inside such blocks.

    transformers 5.6 parses the file for the config, the weights and the tokenizer anew, and names the tensors
    of the whole model for each of its modules.
    """
    import gguf

    return replaced(
        gguf, GGUFReader=cache(gguf.GGUFReader), get_tensor_name_map=cache(gguf.get_tensor_name_map)
    )


def _sampling(config: "GenerationConfig") -> dict[str, float]:
    """Read the penalties of a generation_config and, if it samples, the settings of sampling."""
    settings: dict[str, float] = {}
    names = ["repetition_penalty", "no_repeat_ngram_size"]
    if config.do_sample:
        settings["temperature"] = 1.0
        names += ["temperature", "top_p", "top_k", "min_p"]
    for name in names:
        value = getattr(config, name, None)
        if value is not None:
            settings[name] = value
    return settings


def _attends(net: "PreTrainedModel", device: str) -> bool:
    """True if all layers are attention. Recurrent states would read the padding and cannot be shared."""
    import torch
    from transformers.cache_utils import DynamicLayer

    with torch.inference_mode():
        kept = net(input_ids=torch.zeros(1, 1, dtype=torch.long, device=device), use_cache=True)
    layers = getattr(getattr(kept, "past_key_values", None), "layers", ())
    return bool(layers) and all(isinstance(layer, DynamicLayer) for layer in layers)


def _quantized(bits: int, dtype: str, device: str) -> dict[str, Any]:
    """Arguments to quantise weights as LLaMA-Factory does: NF4 with quantised scales, or LLM.int8()."""
    from transformers import BitsAndBytesConfig

    if importlib.util.find_spec("bitsandbytes") is None:
        raise RequestError(_("--quantize: {reason}", reason=missing("bitsandbytes")))
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)  # it tells every cast of every layer
    config = BitsAndBytesConfig(
        load_in_4bit=bits == 4,
        load_in_8bit=bits == 8,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=dtype,
    )
    return {"quantization_config": config, "device_map": {"": device}}


def check_causal(net: "PreTrainedModel", folder: Path, *, exact: bool) -> None:
    """Raise `ContentError` if the predictions for a text depend on the tokens that follow it.

    Two short texts that begin alike go through the model. The log-probabilities of all tokens after each
    shared token must be equal but for rounding: `exact` allows that of fp32 alone. The mean difference is
    compared with the spread of the log-probabilities, so that neither depends on the size of the model.
    """
    import torch

    texts = torch.arange(SHARED + 2 * CHANGED) % net.get_input_embeddings().num_embeddings
    shared, *rests = texts.split([SHARED, CHANGED, CHANGED])
    ids = torch.stack([torch.cat([shared, rest]) for rest in rests]).to(net.device)
    with torch.inference_mode():
        logits = net(input_ids=ids, use_cache=False).logits
    first, second = logits[:, :SHARED].float().log_softmax(-1)
    difference = (first - second).abs().mean().item()
    spread = first.std(-1).mean().item()
    allowed = EXACT if exact else ROUNDED
    if difference <= allowed * spread or not first.isfinite().all():  # nan is refused where it is scored
        return
    attention = getattr(net.config, "_attn_implementation", None) or "its"
    largest = (first - second).abs().max().item()
    raise ContentError(
        _(
            "{folder}: the model ({model_type}, {attention} attention) is not causal: other "
            "tokens after a text change the log-probabilities within it by up to {largest:.2g} "
            "nats; expected none. It would see the answers that it is scored on. Score another "
            "model, or this one with a release of transformers that masks it",
            folder=folder,
            model_type=net.config.model_type,
            attention=attention,
            largest=largest,
        )
    )
