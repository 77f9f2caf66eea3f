"""A Modelfile as Ollama reads it, and the Go templates that are rendered here, or refused by name."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.messages import raises
from tuneyard.core.errors import ContentError, RequestError
from tuneyard.eval.prove.modelfile import compile_go_template, read_modelfile

PARTS = [
    '{{ "{{" }}', "{{ end }}", "{{ else }}", "{{ if .Role }}", "{{ .Role }}", "{{ range .Messages }}",
    '{{ else if eq .Role "user" }}', "{{", "}}", '"', "{{- ", " -}}", "x",
]  # fmt: skip
USER = [{"role": "user", "content": "Is it?"}]


def write(path: Path, text: str) -> Path:
    path.write_text(text, encoding="utf-8")
    return path


def test_a_modelfile_by_hand(tmp_path: Path) -> None:
    text = (
        "# comment\nfrom ./x.gguf\n"
        'template """{{- range .Messages }}\n  {{- if eq .Role "user" }}Q: {{ .Content }}\n'
        '{{ else if eq .Role "system" }}{{ "{{" }}{{ .Content }}{{ else }}A: {{ .Content }}{{ end }}'
        '{{- end }}  {{- "A:" -}}  """\nSYSTEM Be brief.\nPARAMETER stop "Q:"\n'
    )
    served = read_modelfile(write(tmp_path / "Modelfile", text))
    talk = [*USER, {"role": "assistant", "content": "Yes."}, {"role": "user", "content": "Why?"}]
    assert served.render(USER) == "{{Be brief.Q: Is it?\nA:"
    assert served.render(talk) == "{{Be brief.Q: Is it?\nA: Yes.Q: Why?\nA:"
    assert served.render([{"role": "system", "content": "s"}, *USER]) == "{{sQ: Is it?\nA:"


def test_neighbours_of_one_role_are_joined(tmp_path: Path) -> None:
    path = write(tmp_path / "Modelfile", 'TEMPLATE "{{ range .Messages }}[{{ .Content }}]{{ end }}"\n')
    assert read_modelfile(path).render([*USER, *USER]) == "[Is it?\n\nIs it?]"


@pytest.mark.parametrize(
    ("text", "facts"),
    [
        ("FROM x\n", "TEMPLATE; --to"),
        ('TEMPLATE "{{ .Prompt }}"\n', ""),
        ('TEMPLATE "{{ if .Tools }}x{{ end }}"\n', ""),
        ('TEMPLATE "{{ range .Messages }}x"\n', "endfor"),
        ('TEMPLATE "{{ range .Messages }}{{ if eq .Role .Role }}x"\n', "endif"),
        ('TEMPLATE "{{ .Role }}"\n', ""),
        ('TEMPLATE "x{{ end }}"\n', "end"),
        ('TEMPLATE """{{ x " {{ "{{" }}"""\n', "{{ x "),
        ('TEMPLATE "{{ if eq "a" "a" }}x{{ else }}y{{ else }}z{{ end }}"\n', "else"),
        ("TEMPLATE " + '{{ if eq "a" "a" }}' * 150 + "{{ end }}" * 150 + "\n", ""),
        ('TEMPLATE "{{ if and .Role .Content }}x{{ end }}"\n', ""),
        ('TEMPLATE "{{ .Role"\n', ""),
        ('TEMPLATE "x"\nMESSAGE user hi\n', "MESSAGE"),
    ],
)
def test_what_is_not_rendered_is_refused_by_name(tmp_path: Path, text: str, facts: str) -> None:
    path = write(tmp_path / "Modelfile", text)
    with raises(ContentError, path, facts):
        read_modelfile(path)


def test_a_modelfile_that_is_not_there(tmp_path: Path) -> None:
    with raises(RequestError, "Modelfile not found"):
        read_modelfile(tmp_path / "Modelfile")


@given(st.lists(st.sampled_from(PARTS)))
def test_any_template_renders_or_is_refused(parts: list[str]) -> None:
    try:
        said = compile_go_template("".join(parts))(USER)
    except ContentError as error:
        assert "cannot render" in str(error) or "cannot be rendered" in str(error)
    else:
        assert "Messages" not in said


def test_a_modelfile_that_would_be_read_for_hours_is_refused(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr("tuneyard.core.errors.TIME_LIMIT", 0.1)
    with raises(ContentError, "0.1"):
        read_modelfile(write(tmp_path / "Modelfile", "TEMPLATE {{" + " " * 20_000 + "x"))
