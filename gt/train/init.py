"""Training that begins with what other runs have learned: their weights, some of them frozen, or low-rank changes."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from gt.errors import UserError, nearest
from gt.ranges import at_least
from gt.schema import Schema, several
from gt.train.checkpoint import checkpoint_in
from gt.train.checkpoint_files import read
from gt.train.job import read_json, write_json
from gt.train.launch import rank_outside
from gt.train.low_rank import is_change, merged, plain
from gt.train.meaning import difference, last_map, other_meaning, take_rows
from gt.train.processes import is_child
from gt.train.resume import settings, shown, size

BEGUN = "init.json"  # in a run's folder: which weights were taken over, and why others were not
TRUNK = "trunk"  # the word for all but the head
SHOWN = 6  # names in a line


@dataclass(frozen=True)
class Init:
    """What a training begins with, and what of it stays.

    Attributes:
        run: the folder of a run, or a checkpoint; of several the mean of their weights, a soup (Wortsman et al. 2022).
        head: whether the head is taken over too; else it is new.
        freeze: patterns of parameters' names that are not trained, such as ``nodes.*`` (the embedding) or
            ``blocks.0.*``; ``trunk`` is all but the head. Norms among them keep their statistics.
        lora: the rank of the changes of attention and feed-forward networks (Hu et al. 2022), which are trained with
            whatever is new while all else is frozen; 0: none.
    """

    run: str | Sequence[str] | None = None
    head: bool = False
    freeze: str | Sequence[str] = ()
    lora: int = 0

    def __post_init__(self) -> None:
        at_least(0, self.lora, "lora")
        if not self.run and (self.lora or self.freeze):
            raise UserError("init.lora and init.freeze are for weights that were learned before: say init=RUN")

    @property
    def patterns(self) -> list[str]:
        """Those of the names that are frozen."""
        return [self.freeze] if isinstance(self.freeze, str) else list(self.freeze)

    def begin(self, net: nn.Module, schema: Schema, config: Mapping[str, Any], folder: Path, resumed: bool) -> str:
        """Take the weights over and freeze what is to stay, in place; returns a few lines on that.

        Args:
            net: fresh.
            schema: of the data.
            config: of the network, see `gt.train.network.network_config`.
            folder: of the run, where `BEGUN` is written; a run that goes on reads it, for its weights are its own.
            resumed: whether this is one.

        Raises:
            UserError: nothing fits, a pattern names nothing, or what it names was not taken over.
        """
        if not self.run:
            return ""
        if resumed:
            lines: list[str] = []
            taken = read_json(folder / BEGUN)["taken"]
        else:
            lines, taken = self._take(net, schema, config, folder)
        self._freeze(net, set(taken))
        trained, every = (
            sum(p.numel() for p in net.parameters() if p.requires_grad or all_of) for all_of in (False, True)
        )
        if not trained:
            tied = not any(name.startswith("head.") for name, _ in net.named_parameters())
            why = ": the head has no weights of its own, see model.head.tied" if tied else ""
            raise UserError(f"init.freeze leaves nothing to train{why}")
        if trained < every:
            how = f"changes of rank {self.lora}: " if self.lora else ""
            lines.append(f"{how}{trained:,} of {every:,} parameters are trained ({trained / every:.1%})")
        return "\n".join(lines)

    def _take(
        self, net: nn.Module, schema: Schema, config: Mapping[str, Any], folder: Path
    ) -> tuple[list[str], list[str]]:
        runs = [self.run] if isinstance(self.run, str) else list(self.run or ())
        theirs, saved = soup([checkpoint_in(Path(run)) for run in runs])
        reasons: dict[str, list[str]] = {}
        taken = []
        own = {plain(name): value for name, value in own_weights(net).items() if not is_change(name)}
        before = Schema.from_dict(saved["schema"])
        meant, last = other_meaning(before, schema), last_map(net, schema)
        by_rows = {"nodes.table.weight", "edges.table.weight", *last}
        for name, value in own.items():
            part = name.partition(".")[0]
            concerned = part != "head" or not last or name in last  # what lies before the last map is of any outputs
            if part == "head" and not self.head:
                reasons.setdefault("a new head", []).append(name)
            elif part in meant and concerned:
                rows = take_rows(part, value, theirs[name], schema, before) if name in by_rows & theirs.keys() else 0
                if rows == len(value):
                    taken.append(name)
                    continue
                known = f": {rows} of {len(value)} rows, which mean the same in both, are taken over" if rows else ""
                reasons.setdefault(meant[part] + known, []).append(name)
            elif name not in theirs:
                reasons.setdefault("not there", []).append(name)
            elif size(theirs[name]) != size(value):
                reasons.setdefault("of another size", []).append(name)
            else:
                value.copy_(theirs[name].view_as(value))
                taken.append(name)
        what = f"{several(runs, 3)}{' (their mean)' if len(runs) > 1 else ''}"
        differ = differences(saved["config"], config)
        if not any(name.startswith("blocks.") and own[name].dim() > 1 for name in taken):
            hint = f"; it was trained with {' '.join(differ[:SHOWN])}" if differ else ""
            raise UserError(f"init={what}: none of its layers fits this network{hint}")
        if not (is_child() or rank_outside()):  # one process writes
            write_json(folder / BEGUN, {"runs": runs, "taken": taken, "new": reasons})
        lines = [f"begins with {what}: {len(taken)} of {len(own)} weights taken over, listed in {folder / BEGUN}"]
        lines += [f"  new, {why}: {several(names, SHOWN)}" for why, names in reasons.items()]
        if differ and len(reasons) > 1:
            lines.append(f"  it was trained with {' '.join(differ[:SHOWN])}")
        return lines, taken

    def _freeze(self, net: nn.Module, taken: set[str]) -> None:
        parameters = {plain(name): p for name, p in net.named_parameters() if not is_change(name)}
        trunk = {name for name in parameters if not name.startswith("head.")}
        frozen = trunk & taken if self.lora else set()
        for pattern in self.patterns:
            named = trunk if pattern == TRUNK else {name for name in parameters if fnmatchcase(name, pattern)}
            if not named:
                parts = {f"{name.partition('.')[0]}.*" for name in parameters} | {TRUNK}
                raise UserError(f"init.freeze: no parameter is called '{pattern}': {nearest(pattern, parts)}")
            if fresh := sorted(named - taken):
                raise UserError(f"init.freeze={pattern}: {fresh[0]} is new here, and would stay as it was drawn")
            frozen |= named
        for name in frozen:
            parameters[name].requires_grad_(False)


def soup(paths: Sequence[Path]) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The mean of the networks' weights in checkpoints, by plain names, and the facts of the first.

    Raises:
        UserError: one is of another network than the first, or reads or predicts something else.
    """
    saved = [read(path) for path in paths]
    schemas = [Schema.from_dict(each["hyper_parameters"]["schema"]) for each in saved]
    for path, schema in zip(paths, schemas, strict=True):
        # where a text is cut off changes the meaning of no weight
        if apart := difference(schemas[0], schema, but=("longest",)):
            raise UserError(f"{paths[0]} and {path} have no mean, for they differ in {apart}")
    states = [
        merged({k.removeprefix("net."): v for k, v in each["state_dict"].items() if k.startswith("net.")})
        for each in saved
    ]
    for path, state in zip(paths, states, strict=True):
        if {k: size(v) for k, v in state.items()} != {k: size(v) for k, v in states[0].items()}:
            raise UserError(f"{path} is of another network than {paths[0]}: only weights of one network have a mean")
    mean = {
        name: torch.stack([state[name].view_as(value) for state in states]).mean(0)
        if value.is_floating_point()
        else value
        for name, value in states[0].items()
    }
    return mean, saved[0]["hyper_parameters"]


def own_weights(net: nn.Module) -> dict[str, Tensor]:
    """The state of a network, each tensor once: one that is tied to another goes by the first name."""
    distinct: dict[Any, tuple[str, Tensor]] = {}
    for name, value in net.state_dict().items():
        distinct.setdefault((value.data_ptr(), value.shape) if value.numel() else name, (name, value))
    return dict(distinct.values())


def differences(theirs: Mapping[str, Any], ours: Mapping[str, Any]) -> list[str]:
    """The settings of a network that differ from ours, as overrides that repeat them."""
    before, after = (dict(settings(dict(each))) for each in (theirs, ours))
    return [f"{key}={shown(value)}" for key, value in before.items() if after.get(key) != value]
