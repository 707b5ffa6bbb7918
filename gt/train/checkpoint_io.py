"""Lightning's checkpoint I/O plugin."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from lightning_fabric.plugins.io import CheckpointIO

from gt.train.checkpoint_files import load, write


class CheckpointFiles(CheckpointIO):
    """Reads and writes checkpoints by `gt.train.checkpoint_files`; ``storage_options`` is passed as ``older``."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any = None) -> None:
        write(checkpoint, Path(path), storage_options or ())

    def load_checkpoint(
        self, path: str | Path, map_location: Callable[..., Any] | None = None, weights_only: bool | None = None
    ) -> dict[str, Any]:
        return load(Path(path))  # not `read`: Lightning also passes bare weights between processes in files

    def remove_checkpoint(self, path: str | Path) -> None:
        Path(path).unlink(missing_ok=True)
