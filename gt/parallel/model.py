"""A network on a batch whose nodes are spread over processes: what it says of this rank's share."""

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
from gt.norms import mixes_rows, normalised
from gt.parallel.ring import Group, Ring
from gt.parallel.share import Share, ring_obstacle


def forward(net: GraphTransformer, share: Share, group: Group = None) -> Tensor:
    """What falls to this rank of ``net(batch)``: a row for each of its nodes, graphs or links. All ranks call it.

    A layer that looks at other nodes runs on the rank's own and on those that these read, whose rows are fetched
    before; what it says of the latter is dropped. Where a `Ring` serves, only rows that edges read are fetched.
    Gradients flow between ranks: a parameter's is the sum of all ranks' of the sum of all ranks' losses.

    Args:
        net: one that `check` takes.
        group: the processes, as many as there are ranks.
    """
    e = None if net.edges is None else net.edges(share.edge_attr)
    state = State(net.embed(share), e, encodings=net.rotations)
    for block, mask in zip(net.blocks, net.masks, strict=True):
        for step in steps_of(block):
            state = _run(step, state, share, mask, group)
    x = normalised(net.norm, state.x, share)
    if share.readout is None:
        return net.in_units(net.head(x, share))
    view = share.readout
    return net.in_units(net.head(view.halo.exchange(x, group)[view.rows], view.batch))


def _run(step: nn.Module, state: State, share: Share, mask: Mask, group: Group) -> State:
    """One step of a block on the rank's own nodes."""
    readers = [part for part in parts_of(step) if reads_of(part) != "self"]
    if not readers:
        return step(state, share, None)
    by_pairs = [part for part in readers if reads_of(part) == "pairs"]
    if by_pairs and all(_goes_round(part, mask) for part in by_pairs):
        if len(by_pairs) == len(readers):
            pairs: Pairs | None = RingPairs(share, mask, share.ring(mask), slice(0, len(state.x)), group)
            return step(state, share, pairs)
        view = share.view(None)
        pairs = RingPairs(view.batch, mask, share.ring(mask), view.rows, group)
    else:
        view = share.view(mask if by_pairs else None)
        pairs = view.pairs
    new = step(replace(state, x=view.halo.exchange(state.x, group)), view.batch, pairs)
    return replace(new, x=new.x[view.rows])


def _goes_round(part: nn.Module, mask: Mask) -> bool:
    """Whether a layer that reads pairs attends by a `Ring`."""
    return isinstance(part, Attention) and ring_obstacle(mask, part.demand("cpu", False)) is None


class RingPairs(Pairs):
    """All pairs of each graph, or those that look back, of which nodes and sources are spread over processes."""

    def __init__(self, batch: GraphBatch, mask: Mask, ring: Ring, rows: slice, group: Group) -> None:
        super().__init__(batch, mask)
        self.ring, self.rows, self.group = ring, rows, group

    def spread(self, layer: Attention, q: Tensor, k: Tensor, v: Tensor, pairs: Pairs) -> Tensor:
        """(N, H, D) each to the same: the own rows among these, zeros elsewhere."""
        layer.used["ring"] += 1
        own = self.rows
        y = self.ring.attend(q[own], k[own], v[own], layer.backend, self.group)
        return F.pad(y, (0, 0, 0, 0, own.start, len(q) - own.stop))


def check(net: nn.Module) -> None:
    """Whether `forward` gives what one process would, in training too.

    Raises:
        UserError: a part goes by more of a batch than a process holds, by its name.
    """
    if not isinstance(net, GraphTransformer):
        raise UserError(f"processes cannot share the nodes of a batch in {type(net).__name__}: choose trainer=ddp")
    if net.virtual_nodes:
        raise UserError("virtual nodes read more of a graph than one of several processes has: choose another mask")
    unknown = {"jump": net.jump is not None, "stochastic_depth": net.stochastic_depth, "redraw": net.redraw}
    for name in (name for name, used in unknown.items() if used):
        raise UserError(
            f"processes that share the nodes of a batch do not know model.{name}: leave it out, or choose trainer=ddp"
        )
    for place, block in enumerate(net.blocks):
        for part in parts_of(block):
            if reads_of(part) == "graph" or {"p", "g"} & set(writes_of(part)):
                raise UserError(
                    f"{name_of(part)} in block {place} reads or keeps more of a graph than one of several processes "
                    "has: choose another layer, or trainer=ddp"
                )
    for encoding in net.encodings:
        if encoding.reads != "position" or {"e", "p"} & set(encoding.writes):
            raise UserError(
                f"{type(encoding).__name__} goes by more of a graph than one of several processes has: "
                "choose encoding=none, or trainer=ddp"
            )
    norms = [net.norm, net.embedding_norm, *(norm for block in net.blocks for norm in norms_of(block))]
    batch_norms = [module for module in net.modules() if isinstance(module, _BatchNorm)]
    for norm in [*batch_norms, *filter(mixes_rows, norms)]:
        raise UserError(
            f"{type(norm).__name__} normalises by nodes of which other processes have some: choose model/norm=layer"
        )
