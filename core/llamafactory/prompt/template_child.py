"""Render Jinja templates that mailed files have: a program of its own, with limits of memory and time.

`templates` starts it. A line of JSON in is a template, the names in it and the seconds of
computing that it may take. A line out is the text, or why there is none. The kernel ends this process at
SIGPROF, since `{{ a == b }}` of nested lists lets no signal through while it works.
"""

import json
import os
import resource
import signal
import sys
from datetime import datetime

import jinja2
from jinja2.ext import Extension, loopcontrols
from jinja2.nodes import CallBlock
from jinja2.parser import Parser
from jinja2.runtime import Macro
from jinja2.sandbox import ImmutableSandboxedEnvironment

MOST_TEMPLATES = 64
CODE_ERRORS = (
    jinja2.TemplateError, TypeError, ArithmeticError, LookupError, ValueError, AttributeError, RuntimeError,
    SyntaxError, NameError, AssertionError, StopIteration,
)  # fmt: skip
"""What the code of a template raises."""


class Generation(Extension):
    """The block `generation`, with which templates mark answers for a loss mask: its text alone."""

    tags = {"generation"}  # noqa: RUF012  as jinja2 declares it

    def parse(self, parser: Parser) -> CallBlock:
        """As transformers parses it: names that are set inside stay inside."""
        line = next(parser.stream).lineno
        body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
        block = CallBlock(self.call_method("_text"), [], [], body)
        block.set_lineno(line)
        return block

    def _text(self, caller: Macro) -> str:
        return str(caller())


def refuse(message: str) -> None:
    """The function `raise_exception` of chat templates."""
    raise jinja2.TemplateError(message)


def to_json(value: object, ensure_ascii: bool = False, **options: object) -> str:
    """The filter `tojson` of transformers, which leaves HTML as it is."""
    return json.dumps(value, ensure_ascii=ensure_ascii, **options)  # type: ignore[arg-type]  # of a template


def environment(trims: bool) -> ImmutableSandboxedEnvironment:
    """The environment of transformers for chat templates; without `trims`, lines keep their white space."""
    made = ImmutableSandboxedEnvironment(
        trim_blocks=trims, lstrip_blocks=trims, extensions=[Generation, loopcontrols]
    )
    made.globals["raise_exception"] = refuse
    made.filters["tojson"] = to_json
    return made


class SandboxRenderer:
    """Compiles each template once."""

    def __init__(self) -> None:
        self.environments = {trims: environment(trims) for trims in (False, True)}
        self.templates: dict[tuple[str, bool], jinja2.Template] = {}

    def compiled(self, text: str, trims: bool) -> jinja2.Template:
        """The template of this text."""
        key = (text, trims)
        if key not in self.templates:
            if len(self.templates) >= MOST_TEMPLATES:
                self.templates.clear()
            self.templates[key] = self.environments[trims].from_string(text)
        return self.templates[key]

    def answer(self, job: dict[str, object]) -> dict[str, object]:
        """The text of a job, or {} for one without names, which compiles its template alone."""
        template = self.compiled(str(job["template"]), bool(job["trims"]))
        names = job["names"]
        if not isinstance(names, dict):
            return {}
        moment = names.pop("strftime_now", None)
        day = datetime.fromisoformat(moment) if isinstance(moment, str) else datetime.now()
        pieces = []
        length = 0
        for piece in template.generate({**names, "strftime_now": day.strftime}):
            pieces.append(piece)
            length += len(piece)
            if length > int(str(job["length"])):
                return {"limit": "length"}
        return {"text": "".join(pieces)}


def answer(renderer: SandboxRenderer, line: bytes) -> dict[str, object]:
    """The answer to a line."""
    try:
        job = json.loads(line)
        signal.setitimer(signal.ITIMER_PROF, job["seconds"])
        try:
            return renderer.answer(job)
        finally:
            signal.setitimer(signal.ITIMER_PROF, 0)
    except jinja2.TemplateSyntaxError as error:
        return {"damaged": str(error.message), "line": error.lineno}
    except MemoryError:
        return {"limit": "memory"}
    except CODE_ERRORS as error:
        return {"refused": f"{error}" or type(error).__name__}


def main() -> None:
    """Answer line by line until the parent closes the input."""
    memory = int(sys.argv[1])
    resource.setrlimit(resource.RLIMIT_AS, (memory, memory))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent ends at Ctrl-C, and closes the input
    renderer = SandboxRenderer()
    output = os.fdopen(os.dup(1), "wb")
    for line in sys.stdin.buffer:
        before = sum(os.times()[:2])
        reply = answer(renderer, line)
        reply["seconds"] = sum(os.times()[:2]) - before
        output.write(json.dumps(reply, ensure_ascii=False).encode("utf-8", "surrogatepass") + b"\n")
        output.flush()
        if reply.get("limit") == "memory":  # what is left of it may be in pieces
            return


if __name__ == "__main__":
    main()
