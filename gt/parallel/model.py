"""A network on a batch whose nodes are sharded over processes."""

from dataclasses import replace

from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.modules.batchnorm import _BatchNorm

from gt.errors import UserError
from gt.graph import GraphBatch
from gt.inference.whole_graph import steps_of
from gt.layers import State, name_of, norms_of, parts_of, reads_of, writes_of
from gt.layers.attention import Attention
from gt.masks import Mask, Pairs
from gt.model import GraphTransformer
from gt.norms import apply_norm, mixes_rows
from gt.parallel.ring import Group, Ring
from gt.parallel.share import Share, ring_obstacle


def forward(net: GraphTransformer, share: Share, group: Group = None) -> Tensor:
    """This rank's rows of ``net(batch)``, one for each of its nodes, graphs or links. All ranks call it.

    A layer that looks at other nodes runs on the rank's own nodes and on those that they read, whose rows are fetched
    first and whose outputs are discarded. With a `Ring`, only rows that edges read are fetched. Gradients flow between
    ranks: the gradients of a parameter, summed over ranks, are those of the losses summed over ranks.

    Args:
        net: a network that `check` accepts.
        group: the processes, one for each rank.
    """
    e = None if net.edges is None else net.edges(share.edge_attr)
    state = State(net.embed(share), e, encodings=net.rotations)
    for block, mask in zip(net.blocks, net.masks, strict=True):
        for step in steps_of(block):
            state = _run(step, state, share, mask, group)
    x = apply_norm(net.norm, state.x, share)
    if share.readout is None:
        return net.in_units(net.head(x, share))
    view = share.readout
    return net.in_units(net.head(view.halo.exchange(x, group)[view.rows], view.batch))


def _run(step: nn.Module, state: State, share: Share, mask: Mask, group: Group) -> State:
    """One step of a block on the rank's own nodes."""
    readers = [part for part in parts_of(step) if reads_of(part) != "self"]
    if not readers:
        return step(state, share, None)
    pair_readers = [part for part in readers if reads_of(part) == "pairs"]
    if pair_readers and all(_uses_ring(part, mask) for part in pair_readers):
        if len(pair_readers) == len(readers):
            pairs: Pairs | None = RingPairs(share, mask, share.ring(mask), slice(0, len(state.x)), group)
            return step(state, share, pairs)
        view = share.view(None)
        pairs = RingPairs(view.batch, mask, share.ring(mask), view.rows, group)
    else:
        view = share.view(mask if pair_readers else None)
        pairs = view.pairs
    new = step(replace(state, x=view.halo.exchange(state.x, group)), view.batch, pairs)
    return replace(new, x=new.x[view.rows])


def _uses_ring(part: nn.Module, mask: Mask) -> bool:
    """Whether a layer that reads pairs attends by a `Ring`."""
    return isinstance(part, Attention) and ring_obstacle(mask, part.demand("cpu", False)) is None


class RingPairs(Pairs):
    """All pairs of each graph, or the causal ones, with nodes sharded over processes."""

    def __init__(self, batch: GraphBatch, mask: Mask, ring: Ring, rows: slice, group: Group) -> None:
        super().__init__(batch, mask)
        self.ring, self.rows, self.group = ring, rows, group

    def attend_sharded(self, layer: Attention, q: Tensor, k: Tensor, v: Tensor, pairs: Pairs) -> Tensor:
        """(N, H, D) each to (N, H, D): attention for the rank's own rows, zeros elsewhere."""
        layer.used["ring"] += 1
        own = self.rows
        y = self.ring.attend(q[own], k[own], v[own], layer.backend, self.group)
        return F.pad(y, (0, 0, 0, 0, own.start, len(q) - own.stop))


def check(net: nn.Module) -> None:
    """Check that `forward` computes the same as a single process, in training too.

    Raises:
        UserError: a part depends on more of a batch than a process holds; names it.
    """
    if not isinstance(net, GraphTransformer):
        raise UserError(f"{type(net).__name__} cannot run on a batch sharded over processes: choose trainer=ddp")
    if net.virtual_nodes:
        raise UserError("virtual nodes read more of a graph than a single process holds: choose another mask")
    unsupported = {"jump": net.jump is not None, "stochastic_depth": net.stochastic_depth, "redraw": net.redraw}
    for name in (name for name, used in unsupported.items() if used):
        raise UserError(
            f"model.{name} is not supported on a batch sharded over processes: leave it out, or choose trainer=ddp"
        )
    for index, block in enumerate(net.blocks):
        for part in parts_of(block):
            if reads_of(part) == "graph" or {"p", "g"} & set(writes_of(part)):
                raise UserError(
                    f"{name_of(part)} in block {index} reads or keeps more of a graph than a single process "
                    "holds: choose another layer, or trainer=ddp"
                )
    for encoding in net.encodings:
        if encoding.reads != "position" or {"e", "p"} & set(encoding.writes):
            raise UserError(
                f"{type(encoding).__name__} depends on more of a graph than a single process holds: "
                "choose encoding=none, or trainer=ddp"
            )
    norms = [net.norm, net.embedding_norm, *(norm for block in net.blocks for norm in norms_of(block))]
    batch_norms = [module for module in net.modules() if isinstance(module, _BatchNorm)]
    for norm in [*batch_norms, *filter(mixes_rows, norms)]:
        raise UserError(
            f"{type(norm).__name__} normalises over nodes that other processes hold: choose model/norm=layer"
        )
