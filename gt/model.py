"""The model, whole: embed, blocks under their masks, read out."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from gt.attention import Reading
from gt.dropout import Dropout
from gt.encodings import Encoding, Preparation
from gt.errors import UserError
from gt.features import Features
from gt.graph import GraphBatch
from gt.heads import Head
from gt.layers.agreement import check_masks, check_streams, turns
from gt.layers.base import Layer, State
from gt.layers.block import Blend, Factory, block_cycle
from gt.layers.depth import stochastic_depth
from gt.layers.steps import fits
from gt.layers.traits import parts_of, reads_of, uses_mask
from gt.layers.weights import draw_glorot, draw_normal
from gt.masks import Complete, Mask, Schedule, WideBatch, with_virtual_nodes
from gt.masks.random import redrawn
from gt.norms import normalised
from gt.ranges import at_least, below_one, positive
from gt.schema import Schema
from gt.units import Units

LARGEST_LOG = 85.0  # beyond, float32 holds no exponential


class GraphTransformer(nn.Module):
    """Everything between a GNN and a Transformer.

    Args:
        schema: what the data hold and what is to be predicted.
        width: channels of a node.
        depth: number of blocks.
        block: makes a block from the width; or several do, which take turns in their order or, where each has a name,
            as ``pattern`` spells them.
        pattern: names of ``block``, a letter each or in a list: ``"LLG"`` is two local blocks and a global one, and
            again, up to the depth; empty takes each once.
        mask: who reads whom, in every block; or a list with one mask for each. Where one reads virtual nodes, each
            has a learned state to begin with, and blocks run on all nodes; encodings and the head see real ones only.
            In place of each a `gt.masks.Schedule` may stand: `set_progress` says which of its masks holds.
        encodings: positional and structural encodings.
        head: makes the read-out from the width and the schema.
        norm: makes a last normalisation of the node states, for pre-norm blocks.
        embedding_norm: makes a normalisation of the embedded nodes (BERT).
        dropout: on the embedded nodes.
        input_dropout: on their features, before these are embedded.
        input_bias, input_linear: whether real features are mapped with a bias; whether they are mapped, or padded.
        redraw: draw random masks anew in each step of training, and in evaluation give the mean over so many draws
            (GRASS); 0: they are drawn once.
        init_std: draw every weight from a normal distribution of this deviation, and the maps back into the residual
            stream from one ``sqrt(2 depth)`` times as narrow (GPT-2); None keeps PyTorch's.
        glorot: draw the weights of linear maps uniformly, within ``sqrt(6 / (inputs + outputs))``, and let their biases
            begin at 0 (Glorot & Bengio 2010), as GCN's authors do; not beside ``init_std``.
        jump: makes, from the width and the depth, what joins the states after all blocks for the head, such as
            `gt.layers.JumpMax`; None: it reads the last.
        stochastic_depth: how many graphs skip the last block at each training step, as a share; of the blocks before
            it so much less that none would skip the embedding (Huang et al. 2016).
    """

    def __init__(
        self,
        schema: Schema,
        width: int = 64,
        depth: int = 4,
        block: Factory | Sequence[Factory] | Mapping[str, Factory] = (),
        mask: Mask | Schedule | Sequence[Mask | Schedule] = Complete(),  # noqa: B008  masks are frozen values
        encodings: Sequence[Encoding] = (),
        head: Callable[[int, Schema], nn.Module] = Head,
        norm: Callable[[int], nn.Module] | None = None,
        dropout: float = 0.0,
        init_std: float | None = None,
        glorot: bool = False,
        embedding_norm: Callable[[int], nn.Module] | None = None,
        input_dropout: float = 0.0,
        input_bias: bool = True,
        input_linear: bool = True,
        pattern: str | Sequence[str] = "",
        redraw: int = 0,
        jump: Callable[[int, int], nn.Module] | None = None,
        stochastic_depth: float = 0.0,
    ) -> None:
        super().__init__()
        at_least(0, redraw, "redraw")
        at_least(1, width, "width")
        at_least(0 if jump is None else 1, depth, "depth")
        below_one(stochastic_depth, "stochastic_depth")
        if init_std is not None:
            positive(init_std, "init_std")
            if glorot:
                raise ValueError("glorot and init_std both say how weights are drawn: choose one")
        blocks = block_cycle(block, pattern)
        if depth and not blocks:
            raise ValueError("a model with a depth needs a block to repeat")
        self.scheduled = list(mask) if isinstance(mask, Sequence) else [mask] * depth
        self.set_progress(0.0)
        if len(self.masks) != depth:
            raise ValueError(f"{len(self.masks)} masks for {depth} blocks")
        self.schema, self.width, self.redraw = schema, width, redraw
        modules = [encoding.module(width, schema) for encoding in encodings]
        self.encodings: Any = nn.ModuleList(modules)
        narrowed = sum(module.concat for module in modules if "x" in module.writes)
        if narrowed >= width:
            raise ValueError(
                f"encodings take {narrowed} channels of a width of {width}, and none is left for the nodes: give them "
                "a smaller dim, or the model a larger width"
            )
        nodes = (schema.node_vocab, schema.node_floats, width - narrowed, schema.node_mean, schema.node_scale)
        self.nodes = Features(*nodes, input_dropout, input_bias, input_linear)
        self.blocks = nn.ModuleList(blocks[i % len(blocks)](width) for i in range(depth))
        check_masks(self.blocks, self.scheduled)
        self.virtual_nodes = max((m.virtual_nodes for m in self.masks_of_training()), default=0)
        std = 1.0 if init_std is None else init_std
        drawn = torch.randn(self.virtual_nodes, width) * std
        self.virtual = nn.Parameter(drawn) if self.virtual_nodes else None
        streams = check_streams(self.blocks, modules)
        edges = (schema.edge_vocab, schema.edge_floats, width, schema.edge_mean, schema.edge_scale)
        read = (schema.edge_vocab or schema.edge_floats) and "e" in streams
        self.edges = Features(*edges, name="edge_attr") if read else None
        self.embedding_norm = embedding_norm(width) if embedding_norm else nn.Identity()
        self.dropout = Dropout(dropout)
        self.stochastic_depth = stochastic_depth
        self.jump = jump(width, depth) if jump else None
        self.norm = norm(width) if norm else nn.Identity()
        readout: Any = head(width, schema)
        self.head = readout
        if getattr(readout, "reads_virtual", False) and not self.virtual_nodes:
            raise ValueError("pool: Virtual reads virtual nodes, which no mask has: choose one such as mask=virtual")
        self.units = Units(schema.mean, schema.scale)
        if init_std is not None:
            draw_normal(self, init_std, depth)
        if glorot:
            draw_glorot(self)
        if getattr(readout, "tied", False):
            if narrowed:
                raise ValueError(
                    f"a tied head shares the node embedding, which encodings narrow by {narrowed} channels"
                )
            readout.mlp[-1].weight = self.nodes.table.weight

    def embed(self, batch: GraphBatch) -> Tensor:
        """(N, width): features and encodings."""
        x = self.nodes(batch.x)
        features = [(encoding.concat, encoding.nodes(batch)) for encoding in self._writing("x")]
        if not torch.compiler.is_compiling():
            self._check_features(features, len(x))
        if beside := [feature for concat, feature in features if concat]:
            x = torch.cat([x, *beside], dim=1)
        for concat, feature in features:
            x = x if concat else x + feature
        x = x.to(next(self.parameters()).dtype)  # of a network in 16 bits the table of an encoding may be wider
        return self.dropout(normalised(self.embedding_norm, x, batch))

    def _check_features(self, features: Sequence[tuple[int, Tensor]], rows: int) -> None:
        """Whether what encodings give nodes can be set beside their own features, or added to them.

        Raises:
            UserError: naming the encoding.
        """
        for encoding, (concat, feature) in zip(self._writing("x"), features, strict=True):
            shape = getattr(feature, "shape", None)
            if shape is None or not fits(shape, (rows, shape[-1] if concat else self.width)):
                name, wanted = type(encoding).__name__, (rows, "any" if concat else self.width)
                raise UserError(f"{name} gives nodes {shape and tuple(shape)} and is to give them {wanted}")

    def _writing(self, stream: str) -> list[Encoding]:
        """The encodings that give features to a stream."""
        return [encoding for encoding in self.encodings if stream in encoding.writes]

    @property
    def rotations(self) -> list[Encoding]:
        """The encodings that turn queries and keys."""
        return [encoding for encoding in self.encodings if encoding.rotates]

    def forward(self, batch: GraphBatch) -> Tensor:
        """(B, outputs), (N, outputs) or (K, outputs): a row for each graph, node or link, as the schema asks.

        In float32 at least, whatever the network computes in, for a loss in 16 bits is that of rounded targets.
        """
        if not isinstance(batch, GraphBatch):
            raise TypeError(
                f"a network reads a GraphBatch, not a {type(batch).__name__}: GraphBatch.from_data_list(...)"
            )
        out = [self._predicted(batch, masks) for masks in self.draws()]
        return sum(out[1:], out[0]) / len(out)

    def draws(self) -> list[list[Mask]]:
        """The masks of the blocks in each of the passes whose mean is the prediction: one, unless masks are redrawn."""
        if not self.redraw:
            return [self.masks]
        draws = torch.randint(1 << 31, (1,)).tolist() if self.training else range(self.redraw)
        return [[redrawn(mask, draw) for mask in self.masks] for draw in draws]

    def _predicted(self, batch: GraphBatch, masks: Sequence[Mask]) -> Tensor:
        x = self.embed(batch)
        of_edges = [] if self.edges is None else [self.edges(batch.edge_attr)]
        of_edges += [encoding.edges(batch) for encoding in self._writing("e")]
        wide = with_virtual_nodes(batch, self.virtual_nodes)
        if self.virtual is not None and isinstance(wide, WideBatch):
            rows = self.virtual.to(x.dtype).repeat(batch.num_graphs, 1)
            x = x.new_zeros(wide.num_nodes, self.width).index_copy(0, wide.real, x)
            x = x.index_copy(0, wide.virtual.flatten(), rows)
        state = State(x, sum(of_edges[1:], of_edges[0]) if of_edges else None, encodings=self.rotations)
        of_pairs, last = self._writing("p"), None
        kept: list[Tensor] = []
        for place, (block, mask) in enumerate(zip(self.blocks, masks, strict=True), 1):
            pairs = mask(wide)
            if of_pairs and mask != last and uses_mask(block):  # a state of pairs is that of one mask
                first, *others = (encoding.pairs(pairs) for encoding in of_pairs)
                state, last = replace(state, p=sum(others, first)), mask
            before, state = state, block(state, wide, pairs)
            if self.training and self.stochastic_depth:
                state = stochastic_depth(before, state, wide, pairs, self.stochastic_depth * place / len(self.blocks))
            if self.jump is not None:
                kept.append(state.x)
        for mask in set(masks) - set(self.masks):
            wide.memo.pop(mask)  # another draw than the next pass will have
        final = state.x if self.jump is None else self.jump(kept)
        if isinstance(wide, WideBatch) and getattr(self.head, "reads_virtual", False):
            final = normalised(self.norm, final, wide)  # as within blocks, virtual nodes among the others
            return self.in_units(self.head(final.index_select(0, wide.real), batch, final[wide.virtual]))
        x = final.index_select(0, wide.real) if isinstance(wide, WideBatch) else final
        return self.in_units(self.head(normalised(self.norm, x, batch), batch))

    def in_units(self, out: Tensor) -> Tensor:
        """What the head says, (rows, outputs), in the unit of the data, in float32 at least."""
        out = self.units.restore(out)
        return out.clamp(-LARGEST_LOG, LARGEST_LOG).exp() if self.schema.log else out

    def readings(self, device: str = "cpu", half: bool = False) -> set[Reading]:
        """Each mask that a layer reads pairs by, with what that layer, or an encoding, asks: see `Layer.demand`."""
        known = [
            (mask, block)
            for mask, block in zip(self.masks, self.blocks, strict=True)
            if not self.redraw or redrawn(mask, 0) == mask
        ]
        layers: set[Reading] = {
            (mask, part.demand(device, half) if isinstance(part, Layer) else None)
            for mask, block in known
            for part in parts_of(block)
            if reads_of(part) == "pairs" or (isinstance(part, Layer) and part.demand(device, half) is not None)
        }
        preparing = [Preparation(type(e), e.arguments) for e in self._writing("p") if e.arguments is not None]
        return layers | {(mask, each) for each in preparing for mask, block in known if uses_mask(block)}

    def set_degrees(self, batches: Iterable[GraphBatch]) -> None:
        """Tell the layers that want it the in-degrees of the training data, all of whose batches these are."""
        layers: list[Any] = [module for module in self.modules() if getattr(module, "wants_degrees", False)]
        degrees = torch.zeros(1, dtype=torch.long)
        for batch in batches if layers else ():
            real = batch.in_degree if batch.node_mask is None else batch.in_degree[batch.node_mask]
            counts = real.bincount(minlength=len(degrees))
            counts[: len(degrees)] += degrees
            degrees = counts
        for layer in layers:
            layer.set_degrees(degrees)

    def set_progress(self, progress: float) -> None:
        """Say which share of the training is done, 0 to 1: masks that follow a schedule take their turn in `masks`."""
        self.progress = progress
        self.masks = [mask.at(progress) if isinstance(mask, Schedule) else mask for mask in self.scheduled]

    @property
    def masks_in_use(self) -> set[Mask]:
        """The masks that some layer reads by."""
        return {m for m, b in zip(self.masks, self.blocks, strict=True) if uses_mask(b)}

    def masks_of_training(self) -> list[Mask]:
        """The masks that some layer reads by at some time of the training, each once, in order."""
        used = [mask for mask, block in zip(self.scheduled, self.blocks, strict=True) if uses_mask(block)]
        return list(dict.fromkeys(turn for mask in used for turn in turns(mask)))

    def parameter_count(self) -> int:
        """Trained numbers, tied ones once."""
        return sum(p.numel() for p in self.parameters() if p.requires_grad)

    def blend_weights(self) -> list[float]:
        """The share of the global branch in each block that blends two."""
        blends = [module for module in self.modules() if isinstance(module, Blend)]
        return [float(torch.as_tensor(blend.weight).detach()) for blend in blends]
