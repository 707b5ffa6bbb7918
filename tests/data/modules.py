"""Data modules over sources, for tests."""

from dataclasses import fields
from typing import Any

from gt.data.datamodule import DataModule


def make_data(module: type[DataModule], source: type, *place: Any, **options: Any) -> Any:
    """A data module over a source; each option is passed to whichever of the two has it."""
    of_module = {field.name for field in fields(module)} & options.keys()
    rest = {name: value for name, value in options.items() if name not in of_module}
    return module(source(*place, **rest), **{name: options[name] for name in of_module})
