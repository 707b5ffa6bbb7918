"""The splits that OGB keeps as ``.pt`` files, dictionaries of arrays, read without running anything that they hold."""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.serialization import get_safe_globals, safe_globals

from gt.errors import UserError

_RECONSTRUCT: Any = np.empty(0).__reduce__()[0]
# what an array of numbers is made of; OGB's files name the module as it was called before numpy 2
ARRAYS: list[Any] = [
    _RECONSTRUCT,
    (_RECONSTRUCT, "numpy.core.multiarray._reconstruct"),
    (_RECONSTRUCT, "numpy._core.multiarray._reconstruct"),
    np.ndarray,
    np.dtype,
    *(getattr(np.dtypes, f"{name}DType") for name in ("Int64", "Int32", "Float64", "Float32")),
]


def arrays(path: Path) -> dict[str, np.ndarray]:
    """The arrays in a file that ``torch.save`` made of a dictionary of arrays or tensors of numbers.

    Raises:
        UserError: the file cannot be read, or holds anything else.
    """
    added = [entry for entry in ARRAYS if entry not in get_safe_globals()]  # what is there already is to stay
    try:
        with safe_globals(added):
            found = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises whatever the bytes lead it to; what it advises is to trust the file
        reason = "something else than arrays" if "weights_only" in str(error) else "nothing that can be read"
        raise UserError(f"{path} holds {reason}: replace the file by OGB's") from None
    values = {str(name): np.asarray(value) for name, value in found.items()} if isinstance(found, dict) else {}
    if not values or any(value.dtype.kind not in "iuf" for value in values.values()):
        raise UserError(f"{path} is no dictionary of arrays of numbers: replace the file by OGB's")
    return values
