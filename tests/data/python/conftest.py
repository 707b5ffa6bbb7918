"""A folder of the library for variable misuse, and its dataset in both views."""

import pytest

from tests.data.python.misuse_library import LIBRARY, open_data


@pytest.fixture(scope="module")
def misuse_folder(tmp_path_factory):
    root = tmp_path_factory.mktemp("library")
    for number in range(40):
        (root / f"file{number}.py").write_text(
            LIBRARY.replace("kept", f"kept{number}").replace("size", f"size{number}")
        )
    return root


@pytest.fixture(scope="module")
def misuse_stores(misuse_folder, tmp_path_factory):
    root = tmp_path_factory.mktemp("root")
    return {view: open_data(misuse_folder, view, root) for view in ("graph", "sequence")}
