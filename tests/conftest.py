"""The environment that all tests share, their fixtures, and the skipping of GPU tests without a GPU."""

import gc
import os
import tempfile
from pathlib import Path

import pytest
import torch

torch.set_num_threads(1 if "PYTEST_XDIST_WORKER" in os.environ else 2)  # workers of pytest-xdist share the cores
os.environ.setdefault("WANDB_MODE", "offline")
if not torch.cuda.is_available():  # run Triton kernels in the interpreter; must be set before PyG imports Triton
    os.environ.setdefault("TRITON_INTERPRET", "1")
os.environ["XDG_CACHE_HOME"] = tempfile.mkdtemp()  # measurements cached on this machine must not affect tests


@pytest.fixture(autouse=True)
def clear_launch_variables(monkeypatch):
    """Clear the variables of a distributed launch: a child process would leave all checks to its parent."""
    for name in ("LOCAL_RANK", "NODE_RANK", "WORLD_SIZE"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder of real datasets, from GT_DATA; without it the tests that need them are skipped."""
    folder = os.environ.get("GT_DATA")
    if not folder:
        pytest.skip("set GT_DATA to a folder of real datasets to run this test")
    return Path(folder)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip GPU tests on a machine without a GPU."""
    if torch.cuda.is_available():
        return
    for item in items:
        if item.get_closest_marker("gpu"):
            item.add_marker(pytest.mark.skip(reason="needs a GPU"))


def pytest_sessionfinish() -> None:
    gc.unfreeze()  # programs that ran in this process froze objects, which the interpreter must clean up at exit
