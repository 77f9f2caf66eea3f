"""The one function that renders a template of a file, such as chat_template.jinja: bounded memory and time.

A mailed template may be `{{ 'a' * 3000000000 }}`, or a loop without an end. A process of its own
(template_child.py) renders it, which ends at its limits. A template that met one is not rendered again.
"""

import atexit
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO, Any, NamedTuple, cast

from tuneyard.core import errors
from tuneyard.core.errors import LimitError
from tuneyard.core.files import JsonObject
from tuneyard.core.files.bounded_reading import LARGEST_RECORD
from tuneyard.core.installation.checkout import python_variables
from tuneyard.core.language.message import _

MEMORY = 1 << 29  # bytes of addresses of the process that renders
SECONDS_FOR_EACH = 0.05
"""What each text adds to the seconds of computing that all texts of a template may take together."""
SECONDS_FOR_CHARACTER = 1e-6
PROGRAM = Path(__file__).with_name("template_child.py")
TODAY = "strftime_now"
"""The function by which a chat template writes today's date. Among the names it is a day in ISO form."""


def compile_template(template: str, trims: bool = True) -> None:
    """Raise jinja2's `TemplateSyntaxError` for a damaged template, `LimitError` for an endless one."""
    _RENDERER.render(template, None, trims)


def render_template(template: str, names: Mapping[str, object], trims: bool = True) -> str:
    """Render a template with the settings of transformers; without `trims`, white space of lines stays.

    `names` are values of JSON. All errors of the template's code are jinja2's `TemplateError`. `LimitError`
    if it takes too much memory, time or text.
    """
    return _RENDERER.render(template, names, trims)


def limit_transformers() -> None:
    """Let `apply_chat_template` of transformers' tokenizers render by `render_template` in this process."""
    module = sys.modules.get("transformers.tokenization_utils_base")
    if module is not None:
        vars(module)["render_jinja_template"] = _render_conversations


def _render_conversations(
    conversations: Sequence[object],
    tools: Sequence[object] | None = None,
    documents: Sequence[object] | None = None,
    chat_template: str | None = None,
    add_generation_prompt: bool = False,
    **names: Any,
) -> tuple[list[str], list[object]]:
    """As transformers' `render_jinja_template`, without its masks and its continued messages."""
    for option in ("return_assistant_tokens_mask", "continue_final_message"):
        if names.pop(option, False):
            raise ValueError(_("{option} is not for templates of files", option=option))
    texts = []
    for messages in conversations:
        values = {
            "tools": tools,
            "documents": documents,
            "add_generation_prompt": add_generation_prompt,
            **names,
            "messages": messages,
        }
        texts.append(render_template(str(chat_template), values))
    return texts, []


class _Process(NamedTuple):
    """The process that renders, and the process that started it."""

    process: "subprocess.Popen[bytes]"
    questions: IO[bytes]
    answers: IO[bytes]
    parent: int

    def end(self) -> int:
        """End it, and return its exit code."""
        self.process.kill()
        self.questions.close()
        self.answers.close()
        return self.process.wait()


class _Renderer:
    """Renders in one process. A fork of this process starts its own, since two would mix up their answers."""

    def __init__(self) -> None:
        self._started: _Process | None = None
        self._lock = threading.Lock()
        self._seconds: dict[str, float] = {}
        """What is left of each template's time."""
        self._limits: dict[str, str] = {}
        """Why a template is not rendered again."""

    def render(self, template: str, names: Mapping[str, object] | None, trims: bool) -> str:
        """The text of a template with these names; "" without names, which compiles it."""
        with self._lock:
            if template not in self._limits:
                answer = self._answer(template, names, trims)
                if "limit" in answer:
                    self._limits[template] = _message(answer["limit"])
            if template in self._limits:
                raise LimitError(self._limits[template])
        if "damaged" in answer:
            from jinja2 import TemplateSyntaxError

            raise TemplateSyntaxError(answer["damaged"], answer["line"])
        if "refused" in answer:
            from jinja2 import TemplateError

            raise TemplateError(answer["refused"])
        return str(answer.get("text", ""))

    def _answer(self, template: str, names: Mapping[str, object] | None, trims: bool) -> JsonObject:
        """Send a job, and read its answer: {"limit": …} if the process ended at it."""
        values = json.dumps(names, ensure_ascii=False, default=str)
        seconds = self._seconds.get(template, errors.TIME_LIMIT)
        seconds += SECONDS_FOR_EACH + len(values) * SECONDS_FOR_CHARACTER
        seconds = min(seconds, errors.TIME_LIMIT)
        job = {"template": template, "trims": trims, "length": LARGEST_RECORD, "seconds": seconds}
        head = json.dumps(job, ensure_ascii=False).removesuffix("}")
        line = f'{head}, "names": {values}}}\n'
        process = self._running()
        reply = b""
        try:
            process.questions.write(line.encode("utf-8", "surrogatepass"))
            process.questions.flush()
            reply = process.answers.readline()
        except BrokenPipeError:  # it ended before
            reply = b""
        finally:
            if not reply:  # at a limit, or at Ctrl-C, after which its answer would be that of the next job
                exit_code = self._end()
        if not reply:
            return {"limit": "time" if exit_code == -signal.SIGPROF else "memory"}
        answer: JsonObject = json.loads(reply.decode("utf-8", "surrogatepass"))
        self._seconds[template] = seconds - answer["seconds"]
        if answer.get("limit") == "memory":
            self._end()
        return answer

    def _running(self) -> _Process:
        """The process that renders."""
        if self._started is None or self._started.parent != os.getpid():
            process = subprocess.Popen(
                [sys.executable, PROGRAM, str(MEMORY)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                env={**os.environ, **python_variables()},
            )
            questions, answers = cast("IO[bytes]", process.stdin), cast("IO[bytes]", process.stdout)
            self._started = _Process(process, questions, answers, os.getpid())
            atexit.register(self._end)
        return self._started

    def _end(self) -> int:
        """End the process, and return its exit code: 0 if none runs."""
        started, self._started = self._started, None
        if started is None or started.parent != os.getpid():
            return 0
        return started.end()


def _message(limit: str) -> str:
    """What a template did."""
    if limit == "time":
        return _(
            "the chat template is stopped after {seconds:g} s of computing: take its loops out",
            seconds=errors.TIME_LIMIT,
        )
    if limit == "length":
        return _(
            "the chat template writes more than {size} MiB: take its repeats out", size=LARGEST_RECORD >> 20
        )
    return _("the chat template is stopped at {size} MiB of memory: take its repeats out", size=MEMORY >> 20)


_RENDERER = _Renderer()
