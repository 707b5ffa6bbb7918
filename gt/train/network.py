"""Builds networks from configurations."""

from collections.abc import Mapping
from typing import Any

import torch
from hydra.utils import instantiate
from omegaconf import DictConfig, ListConfig, OmegaConf
from torch import nn

from gt.errors import UserError
from gt.schema import Schema
from gt.train.construct import Refused, constructing
from gt.train.low_rank import add_low_rank
from gt.train.trust import trusted

PARTS = ("model", "mask", "encoding")  # the config groups that define a network


def network_config(cfg: DictConfig) -> dict[str, Any]:
    """The part of a configuration that defines the network, resolved, in plain containers."""
    resolved: dict[str, Any] = OmegaConf.to_container(cfg, resolve=True)  # type: ignore[assignment]
    lora = (resolved.get("init") or {}).get("lora")
    return {part: resolved.get(part, {}) for part in PARTS} | ({"lora": lora} if lora else {})


def encodings_of(config: Mapping[str, Any] | DictConfig) -> list[Any]:
    """The encodings of a configuration, in the order of its entries."""
    entries = config.get("encoding") or {}
    return [instantiate(entry, _convert_="all") for entry in entries.values() if entry is not None]


def build(config: Mapping[str, Any], schema: Schema) -> nn.Module:
    """Build the network of a configuration for data of a given schema, with newly initialised weights.

    Raises:
        UserError: a part rejects its arguments, or the parts do not fit together.
    """
    parts = OmegaConf.create(dict(config))
    with constructing(parts):
        mask = parts.mask
        masks = (
            [instantiate(m, _convert_="all") for m in mask]
            if isinstance(mask, ListConfig)
            else instantiate(mask, _convert_="all")
        )
        make, encodings = instantiate(parts.model, _convert_="all"), encodings_of(parts)
        try:
            net = make(schema, mask=masks, encodings=encodings)
        except TypeError as error:
            if error.__traceback__ is None or error.__traceback__.tb_next is not None:
                raise
            raise UserError(f"model: {error}") from error  # raised by the call itself: the signature differs
    if rank := config.get("lora"):
        add_low_rank(net, rank)
    return net


def rehearse(config: Mapping[str, Any]) -> nn.Module | None:
    """Build the network for dummy data, to report invalid arguments before the real data are built.

    Returns None if that fails in a part from outside this program, as that may need other data.

    Raises:
        UserError: a part rejects its arguments, whatever the data.
    """
    dummy = Schema(node_vocab=(2,), edge_vocab=(2,), outputs=2, max_nodes=1)
    with torch.random.fork_rng(devices=[]):
        try:
            return build(config, dummy)
        except Refused as error:
            if trusted(error.target):
                raise
        except Exception:
            pass
    return None


def rehearse_run(cfg: DictConfig) -> None:
    """Instantiate the parts of a run, other than the trainer, without reading any data.

    Raises:
        UserError: a part rejects its arguments, or a file of the data does not exist.
    """
    with constructing(cfg):
        instantiate(cfg.data).source.check_files()
        for part in ("encoding", "loss", "objective", "spectrum"):
            instantiate(cfg.get(part), _convert_="all")
        rehearse(network_config(cfg))
        instantiate(cfg.optim, _convert_="all")  # last: PyTorch's optimisers import its compiler, which takes a second
