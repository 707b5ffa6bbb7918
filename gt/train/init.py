"""Fine-tuning: initialises a network with the weights of other runs, frozen in part or with low-rank adapters."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from gt.errors import UserError, nearest
from gt.ranges import at_least
from gt.schema import Schema, format_list
from gt.train.checkpoint import checkpoint_in
from gt.train.checkpoint_files import read
from gt.train.job import read_json, write_json
from gt.train.launch import rank_outside
from gt.train.low_rank import is_adapter, merged, plain_name
from gt.train.meaning import changed_parts, copy_common_rows, difference, output_weights
from gt.train.processes import is_child
from gt.train.resume import format_value, settings, size

RECORD = "init.json"  # in the run folder: which weights were copied, and why others were not
TRUNK = "trunk"  # name for everything but the head
MAX_LISTED_NAMES = 6  # in a line


@dataclass(frozen=True)
class Init:
    """Initial weights of a training, and which of them are frozen.

    Attributes:
        run: a run folder or a checkpoint; several give the mean of their weights, a soup (Wortsman et al. 2022).
        head: whether to copy the head, too; otherwise it is newly initialised.
        freeze: name patterns of parameters to freeze, such as ``nodes.*`` (the embedding) or ``blocks.0.*``; ``trunk``
            is everything but the head. Frozen norms keep their statistics.
        lora: rank of LoRA adapters (Hu et al. 2022) of attention and feed-forward networks; they are trained together
            with newly initialised weights, and all else is frozen. 0 for none.
    """

    run: str | Sequence[str] | None = None
    head: bool = False
    freeze: str | Sequence[str] = ()
    lora: int = 0

    def __post_init__(self) -> None:
        at_least(0, self.lora, "lora")
        if not self.run and (self.lora or self.freeze):
            raise UserError("init.lora and init.freeze need weights that were learned before: set init=RUN")

    @property
    def patterns(self) -> list[str]:
        """Name patterns of the parameters to freeze."""
        return [self.freeze] if isinstance(self.freeze, str) else list(self.freeze)

    def begin(self, net: nn.Module, schema: Schema, config: Mapping[str, Any], folder: Path, resumed: bool) -> str:
        """Copy the weights and freeze parameters, in place; returns a few lines of description.

        Args:
            net: newly initialised.
            schema: of the data.
            config: of the network, see `gt.train.network.network_config`.
            folder: of the run, where `RECORD` is written; a resumed run only reads that.
            resumed: whether the run is resumed, with its own weights.

        Raises:
            UserError: no layer fits, or a pattern matches no parameter or one that was not copied.
        """
        if not self.run:
            return ""
        if resumed:
            lines: list[str] = []
            copied = read_json(folder / RECORD)["taken"]
        else:
            lines, copied = self._copy_weights(net, schema, config, folder)
        self._freeze(net, set(copied))
        trained, total = (
            sum(p.numel() for p in net.parameters() if p.requires_grad or all_of) for all_of in (False, True)
        )
        if not trained:
            tied = not any(name.startswith("head.") for name, _ in net.named_parameters())
            reason = ": the head has no weights of its own, see model.head.tied" if tied else ""
            raise UserError(f"init.freeze leaves nothing to train{reason}")
        if trained < total:
            prefix = f"LoRA of rank {self.lora}: " if self.lora else ""
            lines.append(f"{prefix}{trained:,} of {total:,} parameters are trained ({trained / total:.1%})")
        return "\n".join(lines)

    def _copy_weights(
        self, net: nn.Module, schema: Schema, config: Mapping[str, Any], folder: Path
    ) -> tuple[list[str], list[str]]:
        runs = [self.run] if isinstance(self.run, str) else list(self.run or ())
        weights, saved = soup([checkpoint_in(Path(run)) for run in runs])
        reasons: dict[str, list[str]] = {}
        copied = []
        own = {plain_name(name): value for name, value in distinct_weights(net).items() if not is_adapter(name)}
        saved_schema = Schema.from_dict(saved["schema"])
        changed, last = changed_parts(saved_schema, schema), output_weights(net, schema)
        by_rows = {"nodes.table.weight", "edges.table.weight", *last}
        for name, value in own.items():
            part = name.partition(".")[0]
            affected = part != "head" or not last or name in last  # earlier layers of the head do not depend on outputs
            if part == "head" and not self.head:
                reasons.setdefault("a new head", []).append(name)
            elif part in changed and affected:
                n = (
                    copy_common_rows(part, value, weights[name], schema, saved_schema)
                    if name in by_rows & weights.keys()
                    else 0
                )
                if n == len(value):
                    copied.append(name)
                    continue
                note = f": {n} of {len(value)} rows, which mean the same in both, are copied" if n else ""
                reasons.setdefault(changed[part] + note, []).append(name)
            elif name not in weights:
                reasons.setdefault("missing there", []).append(name)
            elif size(weights[name]) != size(value):
                reasons.setdefault("of another size", []).append(name)
            else:
                value.copy_(weights[name].view_as(value))
                copied.append(name)
        label = f"{format_list(runs, 3)}{' (their mean)' if len(runs) > 1 else ''}"
        changes = differences(saved["config"], config)
        if not any(name.startswith("blocks.") and own[name].dim() > 1 for name in copied):
            hint = f"; it was trained with {' '.join(changes[:MAX_LISTED_NAMES])}" if changes else ""
            raise UserError(f"init={label}: none of its layers fits this network{hint}")
        if not (is_child() or rank_outside()):  # one process writes
            write_json(folder / RECORD, {"runs": runs, "taken": copied, "new": reasons})
        lines = [f"begins with {label}: {len(copied)} of {len(own)} weights copied, listed in {folder / RECORD}"]
        lines += [f"  new, {reason}: {format_list(names, MAX_LISTED_NAMES)}" for reason, names in reasons.items()]
        if changes and len(reasons) > 1:
            lines.append(f"  it was trained with {' '.join(changes[:MAX_LISTED_NAMES])}")
        return lines, copied

    def _freeze(self, net: nn.Module, copied: set[str]) -> None:
        parameters = {plain_name(name): p for name, p in net.named_parameters() if not is_adapter(name)}
        trunk = {name for name in parameters if not name.startswith("head.")}
        frozen = trunk & copied if self.lora else set()
        for pattern in self.patterns:
            matches = trunk if pattern == TRUNK else {name for name in parameters if fnmatchcase(name, pattern)}
            if not matches:
                parts = {f"{name.partition('.')[0]}.*" for name in parameters} | {TRUNK}
                raise UserError(f"init.freeze: no parameter is called '{pattern}': {nearest(pattern, parts)}")
            if new := sorted(matches - copied):
                raise UserError(f"init.freeze={pattern}: {new[0]} is new, and would stay at its random initial values")
            frozen |= matches
        for name in frozen:
            parameters[name].requires_grad_(False)


def soup(paths: Sequence[Path]) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The mean of the weights in checkpoints, by plain names, and the hyperparameters of the first.

    Raises:
        UserError: one belongs to a different network than the first, or differs in what it reads or predicts.
    """
    checkpoints = [read(path) for path in paths]
    schemas = [Schema.from_dict(checkpoint["hyper_parameters"]["schema"]) for checkpoint in checkpoints]
    for path, schema in zip(paths, schemas, strict=True):
        # where texts are truncated does not change the meaning of any weight
        if field := difference(schemas[0], schema, but=("longest",)):
            raise UserError(f"{paths[0]} and {path} cannot be averaged: they differ in {field}")
    states = [
        merged({k.removeprefix("net."): v for k, v in checkpoint["state_dict"].items() if k.startswith("net.")})
        for checkpoint in checkpoints
    ]
    for path, state in zip(paths, states, strict=True):
        if {k: size(v) for k, v in state.items()} != {k: size(v) for k, v in states[0].items()}:
            raise UserError(f"{path} and {paths[0]} cannot be averaged: they belong to different networks")
    mean = {
        name: torch.stack([state[name].view_as(value) for state in states]).mean(0)
        if value.is_floating_point()
        else value
        for name, value in states[0].items()
    }
    return mean, checkpoints[0]["hyper_parameters"]


def distinct_weights(net: nn.Module) -> dict[str, Tensor]:
    """The state of a network with each tensor once: tied tensors go by the first name."""
    distinct: dict[Any, tuple[str, Tensor]] = {}
    for name, value in net.state_dict().items():
        distinct.setdefault((value.data_ptr(), value.shape) if value.numel() else name, (name, value))
    return dict(distinct.values())


def differences(saved: Mapping[str, Any], current: Mapping[str, Any]) -> list[str]:
    """The settings of a saved network that differ from the current ones, as overrides."""
    before, after = (dict(settings(dict(config))) for config in (saved, current))
    return [f"{key}={format_value(value)}" for key, value in before.items() if after.get(key) != value]
