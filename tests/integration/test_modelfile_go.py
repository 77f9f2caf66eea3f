"""TEMPLATEs are rendered as Go's own text/template does, where `go` is on PATH (apt-get install golang-go).

Ollama renders with that package: it passes .Messages, whose fields are .Role and .Content.
"""

import json
import random
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.unit.adapters.test_export_modelfile import (
    BRACES,
    CHATML,
    CONVERSATIONS,
    LLAMA3,
    LLAMAFACTORY,
    THINKS,
)
from tests.unit.eval_models.test_modelfile import PARTS
from tuneyard.adapters.export.modelfile import find_wrapping, go_template
from tuneyard.core.errors import ContentError
from tuneyard.core.llamafactory.prompt.rendering import template_renderer
from tuneyard.eval.prove.modelfile import compile_go_template

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not shutil.which("go"), reason="no go on PATH"),
]
CHAT_TEMPLATES = (CHATML, LLAMA3, LLAMAFACTORY, BRACES, THINKS)
PROGRAM = """package main

import ("encoding/json"; "os"; "strings"; "text/template")

type Message struct { Role string; Content string }
type Case struct { Template string; Messages []Message }

func main() {
    var cases []Case
    if err := json.NewDecoder(os.Stdin).Decode(&cases); err != nil { panic(err) }
    texts := []string{}
    for _, one := range cases {
        var text strings.Builder
        parsed, err := template.New("").Option("missingkey=zero").Parse(one.Template)
        if err == nil { err = parsed.Execute(&text, map[string]any{"Messages": one.Messages}) }
        if err != nil { text.WriteString("error: " + err.Error()) }
        texts = append(texts, text.String())
    }
    json.NewEncoder(os.Stdout).Encode(texts)
}
"""
BY_HAND = (
    '{{- range .Messages }}\n  {{- if eq .Role "user" }}Q: {{ .Content }}\n'
    '{{ else if eq .Role "system" }}{{ "{{" }}{{ .Content }}{{ else }}A: {{ .Content }}{{ end }}'
    '{{- end }}  {{- "A:\\n\\t\\"是\\u003c" -}}  '
)
RANDOM = 20_000
"""Templates of a few parts, of which most are refused."""


def test_templates_render_as_by_go(tmp_path: Path) -> None:
    wrappings = [find_wrapping(template_renderer(text, {"bos_token": "<bos>"})) for text in CHAT_TEMPLATES]
    dice = random.Random(0)
    drawn = [" ".join(dice.choices(PARTS, k=dice.randint(1, 7))) for _ in range(RANDOM)]
    cases, expected = [], []
    for template in dict.fromkeys([BY_HAND, *map(go_template, wrappings), *drawn]):
        try:
            render = compile_go_template(template)
        except ContentError:
            continue
        for talk in CONVERSATIONS:
            messages = [{"Role": role, "Content": text} for role, text in talk]
            cases.append({"Template": template, "Messages": messages})
            expected.append(render([{"role": role, "content": text} for role, text in talk]))
    (tmp_path / "main.go").write_text(PROGRAM)
    done = subprocess.run(
        ["go", "run", "main.go"], cwd=tmp_path, input=json.dumps(cases), capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    texts = json.loads(done.stdout)
    differing = [pair for pair in zip(cases, texts, expected, strict=True) if pair[1] != pair[2]]
    print(f"{len(cases)} conversations by {len(cases) // len(CONVERSATIONS)} templates")
    assert differing == []
