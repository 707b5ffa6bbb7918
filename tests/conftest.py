import gc
import os
import tempfile
from pathlib import Path

import pytest
import torch

torch.set_num_threads(1 if "PYTEST_XDIST_WORKER" in os.environ else 2)  # workers share the cores
os.environ.setdefault("WANDB_MODE", "offline")
if not torch.cuda.is_available():  # Triton's kernels then run in its interpreter; it must know before PyG imports it
    os.environ.setdefault("TRITON_INTERPRET", "1")
os.environ["XDG_CACHE_HOME"] = tempfile.mkdtemp()  # what was measured on this machine must not steer tests


@pytest.fixture(autouse=True)
def not_a_child(monkeypatch):
    """No test is a process that another test's launch has started: such a one leaves the checks to its parent."""
    for name in ("LOCAL_RANK", "NODE_RANK", "WORLD_SIZE"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder of real datasets, named by GT_DATA; tests that need it are skipped without it."""
    folder = os.environ.get("GT_DATA")
    if not folder:
        pytest.skip("set GT_DATA to a folder of real datasets to run this test")
    return Path(folder)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Tests for a GPU are skipped where there is none, rather than fail."""
    if torch.cuda.is_available():
        return
    for item in items:
        if item.get_closest_marker("gpu"):
            item.add_marker(pytest.mark.skip(reason="needs a GPU"))


def pytest_sessionfinish() -> None:
    gc.unfreeze()  # what programs imported that ran in this process: an interpreter that exits takes it apart
