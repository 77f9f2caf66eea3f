"""Modelfiles: the TEMPLATE that is written renders as the chat template does, and what is refused."""

import datetime
import re
from pathlib import Path

import pytest

from testing.tiny import CHATML
from tests.conftest import ROOT
from tests.folders import names
from tests.json_files import write_json
from tests.messages import printed, raises
from tests.unit.adapters.commands import call
from tests.unit.adapters.make import base_tensors, factors, make, make_base
from tuneyard.adapters.export.modelfile import quoted
from tuneyard.core.errors import ContentError
from tuneyard.core.llamafactory.prompt.rendering import template_renderer
from tuneyard.eval.prove.modelfile import compile_go_template

OLLAMA = ("--to", "ollama", "--gguf", "model.gguf")
GOLDEN = ROOT / "tests/golden/adapters/export"
LLAMA3 = (
    "{{ bos_token }}{% for m in messages %}"
    "{{ '<|start_header_id|>' + m['role'] + '<|end_header_id|>\n\n' + m['content'] + '<|eot_id|>' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|start_header_id|>assistant<|end_header_id|>\n\n' }}{% endif %}"
)
# The form in which LLaMA-Factory saves its templates: the answer's opening ends the user's turn.
LLAMAFACTORY = (
    "{% if messages[0]['role'] == 'system' %}{% set rest = messages[1:] %}"
    "{% set s = messages[0]['content'] %}"
    "{% else %}{% set rest = messages %}{% set s = 'Be \"brief\".\nAlways.' %}{% endif %}"
    "{{ '<<SYS>>' + s + '<</SYS>>' }}{% for m in rest %}"
    "{% if m['role'] == 'user' %}{{ '[Q] ' + m['content'] + ' [A]' }}{% else %}"
    "{{ m['content'] + '</s>' }}{% endif %}"
    "{% endfor %}"
)
BRACES = CHATML.replace("<|im_start|>", "{' + '{ x }' + '}<|im_start|>")
THINKS = CHATML.replace("assistant\\n' }}", "assistant\\n<think>\\n' }}")  # DeepSeek's and QwQ's begin so
CONVERSATIONS = [
    [("user", "Is it so?")],
    [("system", "Be brief.\n"), ("user", "  {{ .Role }} 是吗？ ")],
    [("user", "a"), ("assistant", "no"), ("user", "b\n\nc")],
    [
        ("system", "s"),
        ("user", "a"),
        ("assistant", "x <|im_end|>"),
        ("user", "b"),
        ("assistant", "y"),
        ("user", "d"),
    ],
]


def test_a_date_in_the_template_stays_that_of_the_export(tmp_path, working_folder):
    make_base("model", base_tensors())
    template = CHATML.replace("You are a helpful assistant.", "It is ' + strftime_now('%Y') + '.")
    Path("model/chat_template.jinja").write_text(template)
    Path("model.gguf").write_bytes(b"GGUF")
    _, notes = call("export", "model", *OLLAMA, "--out", "Modelfile")
    today = datetime.date.today()
    printed(notes, "date", "TEMPLATE", today)
    assert parse(Path("Modelfile"))["SYSTEM"] == [f"It is {today.year}."]


def parse(path):
    """Read a Modelfile as Ollama's parser does: {instruction: [values]}, unquoted."""
    found = {}
    pattern = r'^(\w+) (?:(\w+) )??(?:"""(.*?)"""|"([^"\n]*)"|(\S+))$'
    for word, name, *values in re.findall(pattern, path.read_text(), re.M | re.S):
        found.setdefault(f"{word} {name}".strip(), []).append(next((v for v in values if v), ""))
    return found


def serve(modelfile, messages):
    """Ollama's prompt for a chat: SYSTEM comes first unless the first message is a system's."""
    if messages[0]["role"] != "system" and "SYSTEM" in modelfile:
        messages = [{"role": "system", "content": modelfile["SYSTEM"][0]}, *messages]
    return compile_go_template(modelfile["TEMPLATE"][0])(messages)


def make_model(folder, template=CHATML, bos=None):
    """A model folder with a chat template and the special tokens of ChatML and Llama 3."""
    make_base(folder, base_tensors(), model_type="qwen2")
    special = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|eot_id|>", "<|start_header_id|>", "<bos>"]
    added = [{"id": i, "content": token, "special": True} for i, token in enumerate(special)]
    single = [{"SpecialToken": {"id": bos}}, {"Sequence": {"id": "A"}}]
    post = {"type": "TemplateProcessing", "single": single} if bos else None
    write_json(folder / "tokenizer.json", {"added_tokens": added, "post_processor": post})
    config = {"eos_token": "<|im_end|>", "bos_token": {"content": "<bos>"}, "chat_template": template}
    write_json(folder / "tokenizer_config.json", config)
    sampling = {"eos_token_id": [2, 0], "temperature": 0.7, "top_p": 0.8, "repetition_penalty": 1.05}
    write_json(folder / "generation_config.json", sampling)
    return folder


@pytest.fixture(autouse=True)
def chatml_model(working_folder):
    Path("model.gguf").write_bytes(b"GGUF of another program")
    return make_model(working_folder / "model")


def test_chatml_is_the_golden_modelfile():
    call("export", "model", *OLLAMA, "--out", "served/Modelfile", "--parameter", "num_ctx=4096")
    assert Path("served/Modelfile").read_bytes() == (GOLDEN / "Modelfile").read_bytes()
    assert names("served") == ["Modelfile"]


@pytest.mark.parametrize(
    ("template", "bos"),
    [(CHATML, None), (LLAMA3, None), (LLAMA3, "<bos>"), (LLAMAFACTORY, None), (BRACES, None)],
    ids=["chatml", "llama3", "llama3 with bos", "llamafactory", "braces"],
)
def test_the_template_renders_as_the_chat_template(tmp_path, template, bos):
    make_model(tmp_path / "other", template, bos)
    call("export", "other", *OLLAMA, "--out", "Modelfile")
    found = parse(Path("Modelfile"))
    render = template_renderer(template, {"bos_token": "<bos>"})
    for pairs in CONVERSATIONS:
        messages = [{"role": role, "content": text} for role, text in pairs]
        wanted = render(messages, True)
        assert serve(found, messages) == (wanted.removeprefix("<bos>") if bos else wanted)
    by_hand = (
        "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n<|im_start|>user\nIs it so?<|im_end|>\n"
    )
    if template == CHATML:
        assert serve(found, [{"role": "user", "content": "Is it so?"}]) == by_hand + "<|im_start|>assistant\n"


def test_a_thought_that_the_template_opens_is_closed_as_where_the_model_is_scored(tmp_path):
    assert THINKS != CHATML
    make_model(tmp_path / "other", THINKS)
    call("export", "other", *OLLAMA, "--out", "Modelfile")
    served = serve(parse(Path("Modelfile")), [{"role": "user", "content": "Is it so?"}])
    assert served.endswith("<|im_start|>assistant\n<think>\n\n</think>\n\n")


def test_stop_words_are_the_templates_and_the_models(tmp_path):
    make_model(tmp_path / "other", LLAMA3)
    call("export", "other", *OLLAMA, "--out", "Modelfile", "--system", 'Say "yes".')
    found = parse(Path("Modelfile"))
    wanted = ["<|endoftext|>", "<|eot_id|>", "<|im_end|>", "<|start_header_id|>"]
    assert sorted(found["PARAMETER stop"]) == wanted
    assert "<|end_header_id|>" not in found["PARAMETER stop"]  # it is no special token here
    assert found["SYSTEM"] == ['Say "yes".']
    assert found["PARAMETER repeat_penalty"] == ["1.05"]


@pytest.mark.parametrize(
    ("generation", "temperature"), [({}, "0"), ({"do_sample": True}, "1"), ({"do_sample": False}, "0")]
)
def test_ollamas_own_sampling_is_replaced_by_the_models(generation, temperature):
    write_json(Path("model/generation_config.json"), {"eos_token_id": 2, **generation})
    call("export", "model", *OLLAMA, "--out", "Modelfile")
    found = parse(Path("Modelfile"))
    assert found["PARAMETER temperature"] == [temperature] and found["PARAMETER repeat_penalty"] == ["1"]


def test_every_stop_word_that_is_given_is_kept():
    stops = ["stop=<|im_start|>", "stop=User:", "stop=观察 ："]
    given = [word for stop in stops for word in ("--parameter", stop)]
    call("export", "model", *OLLAMA, "--out", "Modelfile", *given, "--parameter", "temperature=0.2")
    found = parse(Path("Modelfile"))
    assert found["PARAMETER stop"] == ["<|endoftext|>", "<|im_end|>", "<|im_start|>", "User:", "观察 ："]
    assert found["PARAMETER temperature"] == ["0.2"]


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("m['content'] +", "m['content'] | trim +"),
        ("{% if loop.first", "{{ loop.index }}{% if loop.first"),
        ("{% for m in messages %}", "{% for m in messages[-2:] %}"),
        ("m['content'] +", "m['content'] + ('!' if loop.index > 3 else '') +"),
    ],
    ids=["trims", "numbers turns", "drops turns", "changes later turns"],
)
def test_a_template_that_does_more_than_wrap_is_refused(tmp_path, old, new):
    assert old in CHATML
    make_model(tmp_path / "other", CHATML.replace(old, new))
    _, said = call("export", "other", *OLLAMA, "--out", "Modelfile", code=1)
    assert "chat template" in said
    assert not Path("Modelfile").exists()


def test_a_template_that_cuts_thoughts_out_is_named(tmp_path):
    thought = CHATML.replace("m['content'] +", "m['content'].split('</think>')[-1] +")
    make_model(tmp_path / "other", thought)
    _, said = call("export", "other", *OLLAMA, "--out", "Modelfile")
    assert "removes thoughts" in said


def test_a_lora_for_a_base_that_ollama_has(tmp_path):
    adapter = make(tmp_path / "rte", factors(), base_model_name_or_path="model")
    words = ("export", adapter, "--to", "ollama", "--out", "Modelfile")
    assert "--from NAME" in call(*words, "--gguf", "model.gguf", code=2)[1]
    Path("rte.gguf").write_bytes(b"nothing")
    assert "no GGUF file" in call(*words, "--from", "qwen2.5:0.5b", "--gguf", "rte.gguf", code=2)[1]
    Path("rte.gguf").write_bytes(b"GGUF...")
    call(*words, "--from", "qwen2.5:0.5b", "--gguf", "rte.gguf")
    found = parse(Path("Modelfile"))
    assert (found["FROM"], found["ADAPTER"]) == (["qwen2.5:0.5b"], ["./rte.gguf"])


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (OLLAMA, "as in --out Modelfile"),
        ([*OLLAMA, "--out", "m", "--repo", "a/b"], "--repo belongs to --to hub"),
        ([*OLLAMA, "--out", "m", "--parameter", "top_k"], "expected NAME=VALUE"),
        ([*OLLAMA, "--out", "m", "--parameter", "stop="], "expected NAME=VALUE"),
        (
            [*OLLAMA, "--out", "m", "--parameter", "top_k=1", "--parameter", "top_k=2"],
            "'top_k=2': top_k=1 is given, too: keep one",
        ),
        ([*OLLAMA, "--out", "model/Modelfile"], "over an input"),
        ([*OLLAMA, "--out", "m", "--type", "q8_0"], "--type: the file of --gguf has its type"),
        (["--to", "ollama", "--out", "m", "--from", "qwen2.5:0.5b"], "model is a whole model"),
        (["--to", "ollama", "--out", "m", "--type", "q4_k_m"], "llama-quantize"),
        (["--to", "hub"], "no --repo"),
        (["--to", "gguf", "--out", "."], "a folder"),
    ],
)
def test_wrong_requests(words, reason):
    assert reason in call("export", "model", *words, code=2)[1]


def test_no_chat_template(tmp_path):
    (tmp_path / "model/tokenizer_config.json").write_text("{}")
    assert "no chat template" in call("export", "model", *OLLAMA, "--out", "m", code=1)[1]
    (tmp_path / "model/chat_template.jinja").write_text("{% for m in")
    assert "damaged" in call("export", "model", *OLLAMA, "--out", "m", code=1)[1]


def test_a_template_cannot_reach_the_system(tmp_path):
    escape = "{{ ''.__class__.__mro__[1].__subclasses__() }}"
    make_model(tmp_path / "other", escape)
    assert "chat template" in call("export", "other", *OLLAMA, "--out", "m", code=1)[1]


def test_three_quotes_have_no_way_into_a_modelfile():
    assert (quoted("a b"), quoted("a\nb"), quoted('a "b" c')) == ('"a b"', '"""a\nb"""', '"""a "b" c"""')
    for text in ('a"""b', 'a "b"'):
        with pytest.raises(ContentError):
            quoted(text)


@pytest.mark.parametrize(
    "template", ["{{ 1 // 0 }}", "{{ [][0] + 'x' }}", "{{ 'x' + 1 }}", "{{ range(9 ** 9) | list }}"]
)
def test_a_template_whose_code_fails_is_refused(template):
    with raises(ContentError, "user"):
        template_renderer(template, {})([{"role": "user", "content": "x"}], True)
