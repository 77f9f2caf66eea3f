"""The chat template of a server: a file that writes each prompt as the training and the scoring did.

A server renders a template without options. Whether the model thinks is therefore written into the file.
"""

import importlib.util
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tuneyard.core.errors import ContentError, LimitError
from tuneyard.core.language.message import _
from tuneyard.core.llamafactory.loader import quiet
from tuneyard.core.llamafactory.prompt import (
    PROBES,
    Render,
    chat_renderer,
    llamafactory_messages,
    llamafactory_template,
)
from tuneyard.core.llamafactory.prompt.rendering import template_renderer

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

# The texts joined by line breaks, as `chat_renderer` does without a template.
PLAIN = (
    "{% for message in messages %}{{ message['content'] }}"
    "{% if not loop.last %}{{ '\\n' }}{% endif %}{% endfor %}"
)


def serving_template(saved: str | None, special: Mapping[str, str], think: bool) -> str:
    """Write a saved chat template so that a server renders the prompts of the scoring (`chat_renderer`).

    `ContentError` if the template refuses every conversation, computes for too long, or begins thoughts in a
    way that no fixed text can end.
    """
    if saved is None:
        return PLAIN
    served = saved
    if "enable_thinking" in saved:
        served = f"{{% set enable_thinking = {str(think).lower()} %}}\n{saved}"
    scored = template_renderer(saved, special, think)
    ending = _missing_end(served, special, scored)
    if ending:
        served += f"{{% if add_generation_prompt %}}{{{{ {json.dumps(ending)} }}}}{{% endif %}}"
    if _missing_end(served, special, scored) != "":
        if think:
            raise ContentError(_("the chat template writes another text each time; take out what changes it"))
        raise ContentError(_("the chat template cannot be served without thoughts; serve it with --think"))
    return served


def _missing_end(served: str, special: Mapping[str, str], scored: Render) -> str | None:
    """The text that all prompts of `served` lack at their end, None if they differ otherwise.

    The `ContentError` of a template that refuses every conversation is that of the first.
    """
    plain = template_renderer(served, special, think=True)  # which adds nothing after the template
    endings = set()
    refusals = []
    for talk in PROBES:
        try:
            expected = scored(talk, True)
        except LimitError:
            raise
        except ContentError as error:  # many templates refuse a system text
            refusals.append(error)
            continue
        prompt = plain(talk, True)
        if not expected.startswith(prompt):
            return None
        endings.add(expected.removeprefix(prompt))
    if len(refusals) == len(PROBES):
        raise refusals[0]
    if len(endings) != 1:
        return None
    return endings.pop()


def has_llamafactory() -> bool:
    """True if LLaMA-Factory is installed, so that its templates can be compared."""
    return importlib.util.find_spec("llamafactory") is not None


def trained_with(settings: Mapping[str, Any]) -> tuple[str, str | None]:
    """The template that a training names ("": none), and the default system text that it sets."""
    return str(settings.get("template") or ""), settings.get("default_system")


def trained_template(
    tokenizer_folder: Path, trained: tuple[str, str | None], served: str, think: bool
) -> str:
    """Choose the template that gives the token ids of LLaMA-Factory's.

    The first that does is taken: `served`, then the template that LLaMA-Factory writes in Jinja. The import
    takes about 10 s. `ContentError` if neither gives the ids.
    """
    from transformers import AutoTokenizer

    os.environ.setdefault("LLAMAFACTORY_VERBOSITY", "ERROR")
    name, default_system = trained
    try:
        tokenizer = AutoTokenizer.from_pretrained(tokenizer_folder, trust_remote_code=False)
    except (OSError, ValueError, KeyError, TypeError) as error:
        first_line = str(error).splitlines()[0]
        raise ContentError(
            _(
                "{folder}: the tokenizer cannot be loaded: {reason}",
                folder=tokenizer_folder,
                reason=first_line,
            )
        ) from error
    with quiet():
        template, adapted = llamafactory_template(tokenizer, name, think)
    if default_system is not None:
        template.default_system = default_system
    expected = []
    for talk in PROBES:
        turns, system, tools = llamafactory_messages(talk)
        answer = {"role": "assistant", "content": ""}
        expected.append(list(template.encode_oneturn(adapted, [*turns, answer], system, tools)[0]))
    for candidate in _candidates(served, template, adapted, think):
        if _writes(tokenizer, candidate, expected):
            return candidate
    written = _("template {name}", name=name) if name else "LLaMA-Factory's reading of the chat template"
    raise ContentError(
        _(
            "{tokenizer_folder}: neither its chat template nor LLaMA-Factory's own Jinja form "
            "writes the prompts of the training ({written}); write a Jinja template that does "
            "into {template_file}",
            tokenizer_folder=tokenizer_folder,
            written=written,
            template_file=tokenizer_folder / "chat_template.jinja",
        )
    )


def _candidates(
    served: str, template: Any, tokenizer: "PreTrainedTokenizerBase", think: bool
) -> Iterator[str]:
    yield served
    try:
        written: str = template._get_jinja_template(tokenizer)
    except ValueError:  # it has no Jinja form
        return
    yield written
    if not think:
        yield f"{written}{{{{ {json.dumps(template.add_thought())} }}}}"


def _writes(tokenizer: "PreTrainedTokenizerBase", candidate: str, expected: Sequence[list[int]]) -> bool:
    """True if a template gives these token ids for all of `PROBES` that it takes."""
    render = chat_renderer(tokenizer, candidate, think=True)  # which adds nothing after the template
    taken = 0
    for talk, ids in zip(PROBES, expected, strict=True):
        try:
            prompt = render(talk, True)
        except LimitError:
            raise
        except ContentError:  # many templates refuse a system text, which no server then answers
            continue
        taken += 1
        if list(tokenizer(prompt, add_special_tokens=False)["input_ids"]) != ids:
            return False
    return taken > 0
