"""Lightning's reading and writing of checkpoints."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from lightning_fabric.plugins.io import CheckpointIO

from gt.train.checkpoint_files import load, write


class CheckpointFiles(CheckpointIO):
    """Has Lightning write and read them as `gt.train.checkpoint_files` does; ``storage_options`` is its ``older``."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any = None) -> None:
        write(checkpoint, Path(path), storage_options or ())

    def load_checkpoint(
        self, path: str | Path, map_location: Callable[..., Any] | None = None, weights_only: bool | None = None
    ) -> dict[str, Any]:
        return load(Path(path))  # Lightning also hands weights from process to process in files

    def remove_checkpoint(self, path: str | Path) -> None:
        Path(path).unlink(missing_ok=True)
