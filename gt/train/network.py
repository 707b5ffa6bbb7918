"""From configuration to network."""

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

PARTS = ("model", "mask", "encoding")  # the groups of a configuration that define a network


def network_config(cfg: DictConfig) -> dict[str, Any]:
    """The part of a configuration that defines the network, resolved, in plain containers."""
    resolved: dict[str, Any] = OmegaConf.to_container(cfg, resolve=True)  # type: ignore[assignment]
    lora = (resolved.get("init") or {}).get("lora")
    return {part: resolved.get(part, {}) for part in PARTS} | ({"lora": lora} if lora else {})


def encodings_of(config: Mapping[str, Any] | DictConfig) -> list[Any]:
    """The encodings of a configuration, in the order of their names' appearance."""
    entries = config.get("encoding") or {}
    return [instantiate(entry, _convert_="all") for entry in entries.values() if entry is not None]


def build(config: Mapping[str, Any], schema: Schema) -> nn.Module:
    """The network of a configuration for data of a given schema, weights fresh.

    Raises:
        UserError: a part refuses what it is given, or the parts do not fit together.
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
            raise UserError(f"model: {error}") from error  # the call itself: it takes other arguments
    if rank := config.get("lora"):
        add_low_rank(net, rank)
    return net


def rehearse(config: Mapping[str, Any]) -> nn.Module | None:
    """Build the network once for made-up data: what its parts refuse is then said before the real data are built.

    Parts that do not come with this program may ask for other data, and are left for later: it is then None.

    Raises:
        UserError: a part refuses what it is given, whatever the data.
    """
    anything = Schema(node_vocab=(2,), edge_vocab=(2,), outputs=2, max_nodes=1)
    with torch.random.fork_rng(devices=[]):
        try:
            return build(config, anything)
        except Refused as error:
            if trusted(error.target):
                raise
        except Exception:
            pass
    return None


def rehearse_run(cfg: DictConfig) -> None:
    """Build what a run is made of once, but for what trains it; no data are read.

    Raises:
        UserError: a part refuses what it is given, or a file of the data does not exist.
    """
    with constructing(cfg):
        instantiate(cfg.data).source.check_files()
        for part in ("encoding", "loss", "objective", "spectrum"):
            instantiate(cfg.get(part), _convert_="all")
        rehearse(network_config(cfg))
        instantiate(cfg.optim, _convert_="all")  # last: PyTorch's optimisers bring its compiler, which takes a second
