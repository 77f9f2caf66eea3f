"""eval prove with a Modelfile and a server: llama.cpp is asked as Ollama would ask its own."""

from pathlib import Path
from typing import Any

from tests.cli.test_prove_server import LENGTH, Home, home, whole  # noqa: F401

TEMPLATE = (
    "{{- range .Messages }}<|im_start|>{{ .Role }}\n{{ .Content }}<|im_end|>\n{{ end }}"
    "<|im_start|>assistant\n"
)
SYSTEM = "You are a helpful assistant."
PARAMETERS = ("temperature 0", "repeat_penalty 1", "top_k 1", 'stop "<|im_end|>"')


def write_modelfile(folder: Path, *parameters: str, system: str = SYSTEM) -> Path:
    lines = ["FROM ./model.gguf", f'TEMPLATE """{TEMPLATE}"""', f'SYSTEM """{system}"""']
    path = folder / "Modelfile"
    path.write_text("\n".join([*lines, *(f"PARAMETER {line}" for line in parameters), ""]))
    return path


def of_modelfile(proof: dict[str, Any], part: str, modelfile: Path, url: str, name: str = "model") -> Any:
    (one,) = [one for one in proof[part] if one[name] == f"{modelfile} at {url}"]
    return one


def test_a_modelfiles_parameters_are_in_each_request(home: Home, tmp_path: Path) -> None:  # noqa: F811
    url = home.serve("llama.cpp", "one")
    modelfile = write_modelfile(tmp_path, *PARAMETERS, "num_ctx 512")
    proof = home.prove("--url", url, "--modelfile", str(modelfile))
    assert of_modelfile(proof, "prompts", modelfile, url, "way")["equal"]
    chat = of_modelfile(proof, "chats", modelfile, url)
    assert (chat["n"], chat["differing"], chat["runs_on"]) == (6, 0, [])
    bodies = [body for body in home.servers[0].requests if body.get("stop")]
    assert len(bodies) == 6
    for body in bodies:
        assert body["stop"] == ["<|im_end|>"] and body["n_predict"] == LENGTH
        assert (body["temperature"], body["top_k"], body["repeat_penalty"]) == (0, 1, 1)
        assert (body["min_p"], body["mirostat"], body["dry_multiplier"]) == (0, 0, 0)  # not the server's own


def test_a_modelfile_belongs_to_the_first_adapter(home: Home, tmp_path: Path) -> None:  # noqa: F811
    url = home.serve("llama.cpp", "base", "one", "two")
    modelfile = write_modelfile(tmp_path, *PARAMETERS)
    proof = home.prove("--url", url, "--modelfile", str(modelfile), names=("two", "one"))
    assert of_modelfile(proof, "chats", modelfile, url)["differing"] == 0
    asked = {str(body["lora"]) for body in home.servers[0].requests if body.get("stop")}
    assert asked == {"[{'id': 1, 'scale': 1.0}]"}


def test_num_ctx_and_num_predict_cut_as_in_ollama(home: Home, tmp_path: Path) -> None:  # noqa: F811
    url = home.serve("llama.cpp", "one")
    modelfile = write_modelfile(tmp_path, *PARAMETERS, "num_ctx 16")
    proof = home.prove("--url", url, "--modelfile", str(modelfile), code=1)
    chat = of_modelfile(proof, "chats", modelfile, url)
    assert chat["refused"] == list(range(6))
    (cause,) = proof["causes"]
    assert cause["name"] == "context cut" and "PARAMETER num_ctx 256" in cause["sentence"]
    modelfile = write_modelfile(tmp_path, *PARAMETERS, "num_predict 1")
    proof = home.prove("--url", url, "--modelfile", str(modelfile), code=1)
    (cause,) = proof["causes"]
    assert cause["name"] == "answer cut" and "num_predict 1 cuts" in cause["sentence"]
    modelfile = write_modelfile(tmp_path, *PARAMETERS, "num_predict -1")
    home.prove("--url", url, "--modelfile", str(modelfile))


def test_another_system_text_in_a_modelfile_is_found(home: Home, tmp_path: Path) -> None:  # noqa: F811
    url = home.serve("llama.cpp", "one")
    modelfile = write_modelfile(tmp_path, *PARAMETERS, system="You are a pirate.")
    proof = home.prove("--url", url, "--modelfile", str(modelfile), code=1)
    assert of_modelfile(proof, "prompts", modelfile, url, "way")["differing"] == 6
    causes = [cause for cause in proof["causes"] if cause["model"] == f"{modelfile} at {url}"]
    assert [cause["name"] for cause in causes] == ["system text"]
    assert "You are a pirate." in causes[0]["sentence"] and "adapter export" in causes[0]["sentence"]


def test_parameters_without_a_llama_cpp_server_are_not_checked(home: Home, tmp_path: Path) -> None:  # noqa: F811
    modelfile = write_modelfile(tmp_path, *PARAMETERS)
    proof = home.prove("--url", home.serve("vllm", "one"), "--modelfile", str(modelfile))
    (line,) = [line for line in proof["not_checked"] if "parameters of" in line]
    assert str(modelfile) in line and "--url" in line and "llama.cpp" in line
