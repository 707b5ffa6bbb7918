"""The splits that OGB keeps as ``.pt`` files, dictionaries of arrays, read without running anything that they hold."""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.serialization import get_safe_globals, safe_globals

from gt.errors import UserError

_RECONSTRUCT: Any = np.empty(0).__reduce__()[0]
# what an array of whole numbers is made of; its files name the module as it was called before numpy 2
ARRAYS: list[Any] = [
    _RECONSTRUCT,
    (_RECONSTRUCT, "numpy.core.multiarray._reconstruct"),
    (_RECONSTRUCT, "numpy._core.multiarray._reconstruct"),
    np.ndarray,
    np.dtype,
    np.dtypes.Int64DType,
    np.dtypes.Int32DType,
]


def arrays(path: Path) -> dict[str, np.ndarray]:
    """The arrays of whole numbers in a file that ``torch.save`` made of a dictionary of arrays or tensors.

    Raises:
        UserError: the file cannot be read, or holds anything else.
    """
    added = [entry for entry in ARRAYS if entry not in get_safe_globals()]  # what is there already is to stay
    try:
        with safe_globals(added):
            found = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises whatever the bytes lead it to
        reason = str(error).split("\n")[0]
        raise UserError(f"{path} is not a split of OGB ({reason}): replace the file by OGB's") from None
    if not isinstance(found, dict):
        raise UserError(f"{path} is not a dictionary of arrays: replace the file by OGB's")
    values = {str(name): np.asarray(value) for name, value in found.items()}
    for name, value in values.items():
        if value.dtype.kind not in "iu":
            raise UserError(f"{path}: {name!r} holds no whole numbers; replace the file by OGB's")
    return values
