"""The splits that OGB keeps as ``.pt`` files, dictionaries of arrays, read without running anything that they hold."""

from pathlib import Path

import numpy as np

from gt.data.reading import load_tensors
from gt.errors import UserError


def arrays(path: Path) -> dict[str, np.ndarray]:
    """The arrays in a file that ``torch.save`` made of a dictionary of arrays or tensors of numbers.

    Raises:
        UserError: the file cannot be read, or holds anything else.
    """
    content = load_tensors(path, "replace the file by OGB's")
    values = {str(name): np.asarray(value) for name, value in content.items()} if isinstance(content, dict) else {}
    if not values or any(value.dtype.kind not in "iuf" or not value.ndim for value in values.values()):
        raise UserError(f"{path} is no dictionary of arrays of numbers: replace the file by OGB's")
    return values
