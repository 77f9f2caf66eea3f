"""The doctor's findings about fonts and GPUs, each both ways."""

from types import SimpleNamespace

import pytest

from tuneyard.core import doctor, drawing

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
