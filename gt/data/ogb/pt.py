"""Reads splits that OGB stores as ``.pt`` files, dictionaries of arrays, without executing pickled code."""

from pathlib import Path

import numpy as np

from gt.data.reading import load_tensors
from gt.errors import UserError


def arrays(path: Path) -> dict[str, np.ndarray]:
    """The arrays in a dictionary of numeric arrays or tensors that ``torch.save`` wrote.

    Raises:
        UserError: the file cannot be read, or holds something else.
    """
    content = load_tensors(path, "replace the file by OGB's")
    values = {str(name): np.asarray(value) for name, value in content.items()} if isinstance(content, dict) else {}
    if not values or any(value.dtype.kind not in "iuf" or not value.ndim for value in values.values()):
        raise UserError(f"{path} is not a dictionary of numeric arrays: replace the file by OGB's")
    return values
