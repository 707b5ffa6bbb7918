"""A machine whose GPU PyTorch cannot use, such as one with an old driver: a line says so, and its CPU is usable."""

import pytest
import torch

from gt import doctor
from gt.cli.program import device_of
from gt.errors import UserError
from gt.train.metadata import machine
from gt.train.processes import check_devices

REASON = r"cannot use this machine's GPU \(The driver is too old \(found 12040\)\): repair its driver, or choose "


@pytest.fixture(autouse=True)
def old_driver(monkeypatch):
    """What PyTorch does there once Lightning has been imported: it counts the cards and fails when it uses one."""

    def fail(*_):
        raise RuntimeError("The driver is too old (found 12040). Please update your GPU driver by downloading another")

    for name in ("init", "_lazy_init", "get_device_properties", "get_device_name"):
        monkeypatch.setattr(torch.cuda, name, fail)
    monkeypatch.setattr("torch.cuda.device_count", lambda: 1)
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr("torch.version.cuda", "13.0")


@pytest.mark.parametrize("accelerator", ["auto", "gpu", "cuda"])
def test_a_run_that_would_train_on_it_says_so(accelerator):
    with pytest.raises(UserError, match=f"{REASON}trainer=cpu$"):
        check_devices(accelerator, 1)


def test_a_run_may_train_on_the_cpu():
    check_devices("cpu", 1)
    assert "gpu" not in machine()


def test_programs_use_the_cpu_unless_told_otherwise():
    assert device_of(None).type == "cpu"
    with pytest.raises(UserError, match=f"{REASON}--device cpu$"):
        device_of("cuda")


def test_the_doctor_names_the_reason():
    assert dict(doctor.devices())["GPU"] == (
        "none that torch (for CUDA 13.0) can use: The driver is too old (found 12040)"
    )
    assert not any(name.endswith("on cuda") for name, _ in doctor.kernels())
