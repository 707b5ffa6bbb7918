"""The complete model: embedding, blocks with their masks, read-out."""

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
from gt.layers.agreement import check_masks, check_streams, masks_of
from gt.layers.base import Layer, State
from gt.layers.block import Blend, Factory, block_cycle
from gt.layers.depth import stochastic_depth
from gt.layers.steps import broadcasts_to
from gt.layers.traits import parts_of, reads_of, uses_mask
from gt.layers.weights import draw_glorot, draw_normal
from gt.masks import Complete, Mask, Schedule, WideBatch, with_virtual_nodes
from gt.masks.random import redraw_mask
from gt.norms import apply_norm
from gt.ranges import at_least, below_one, positive
from gt.schema import Schema
from gt.units import Units

MAX_LOG = 85.0  # beyond, exp() overflows or underflows in float32


class GraphTransformer(nn.Module):
    """A graph transformer: anything from a GNN to a Transformer.

    Args:
        schema: describes the data and the prediction target.
        width: channels per node.
        depth: number of blocks.
        block: factory that makes a block from the width. With several, blocks cycle through them in order or, if they
            are named, as spelled by ``pattern``.
        pattern: names from ``block``, as letters or a list: ``"LLG"`` is two local blocks and a global one, repeated
            up to the depth; empty uses each factory in turn.
        mask: which nodes attend to which, for every block; or a list with one mask per block. If a mask has virtual
            nodes, each starts from a learned state and the blocks run on all nodes; encodings and the head see only
            the real ones. A `gt.masks.Schedule` may replace any mask: `set_progress` selects the active one.
        encodings: positional and structural encodings.
        head: factory of the read-out, called with the width and the schema.
        norm: factory of a final normalisation of the node states, for pre-norm blocks.
        embedding_norm: factory of a normalisation of the embedded nodes (BERT).
        dropout: dropout rate of the embedded nodes.
        input_dropout: dropout rate of the node features, before they are embedded.
        input_bias, input_linear: whether the linear map of real features has a bias; whether there is one, or the
            features are zero-padded instead.
        redraw: redraw random masks at every training step and average this many draws in evaluation (GRASS); 0 draws
            them once.
        init_std: standard deviation of normally distributed initial weights; that of the projections back into the
            residual stream is ``sqrt(2 depth)`` times smaller (GPT-2). None keeps PyTorch's initialisation.
        glorot: initialise linear maps uniformly within ``sqrt(6 / (inputs + outputs))`` and their biases to 0
            (Glorot & Bengio 2010), as the authors of GCN do; excludes ``init_std``.
        jump: factory, called with the width and the depth, of a module that combines the states after all blocks for
            the head, such as `gt.layers.JumpMax`; None: the head reads the last state.
        stochastic_depth: share of graphs that skip the last block at each training step, decreasing linearly to 0 at
            the embedding (Huang et al. 2016).
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
                raise ValueError("glorot and init_std both set the initialisation of weights: choose one")
        blocks = block_cycle(block, pattern)
        if depth and not blocks:
            raise ValueError("a model with depth > 0 needs at least one block")
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
                f"encodings take {narrowed} of {width} channels and leave none for the node features: give them a "
                "smaller dim, or the model a larger width"
            )
        node_args = (schema.node_vocab, schema.node_floats, width - narrowed, schema.node_mean, schema.node_scale)
        self.nodes = Features(*node_args, input_dropout, input_bias, input_linear)
        self.blocks = nn.ModuleList(blocks[i % len(blocks)](width) for i in range(depth))
        check_masks(self.blocks, self.scheduled)
        self.virtual_nodes = max((m.virtual_nodes for m in self.masks_of_training()), default=0)
        std = 1.0 if init_std is None else init_std
        virtual = torch.randn(self.virtual_nodes, width) * std
        self.virtual = nn.Parameter(virtual) if self.virtual_nodes else None
        streams = check_streams(self.blocks, modules)
        edge_args = (schema.edge_vocab, schema.edge_floats, width, schema.edge_mean, schema.edge_scale)
        reads_edge_features = (schema.edge_vocab or schema.edge_floats) and "e" in streams
        self.edges = Features(*edge_args, name="edge_attr") if reads_edge_features else None
        self.embedding_norm = embedding_norm(width) if embedding_norm else nn.Identity()
        self.dropout = Dropout(dropout)
        self.stochastic_depth = stochastic_depth
        self.jump = jump(width, depth) if jump else None
        self.norm = norm(width) if norm else nn.Identity()
        readout: Any = head(width, schema)
        self.head = readout
        if getattr(readout, "reads_virtual", False) and not self.virtual_nodes:
            raise ValueError(
                "pool: Virtual needs virtual nodes, but no mask has any: choose one that does, such as mask=virtual"
            )
        self.units = Units(schema.mean, schema.scale)
        if init_std is not None:
            draw_normal(self, init_std, depth)
        if glorot:
            draw_glorot(self)
        if getattr(readout, "tied", False):
            if narrowed:
                raise ValueError(
                    f"a tied head shares the node embedding, but encodings take {narrowed} of its channels"
                )
            readout.mlp[-1].weight = self.nodes.table.weight

    def embed(self, batch: GraphBatch) -> Tensor:
        """Embed node features and add or concatenate the encodings: (N, width)."""
        x = self.nodes(batch.x)
        features = [(encoding.concat, encoding.nodes(batch)) for encoding in self._writing("x")]
        if not torch.compiler.is_compiling():
            self._check_features(features, len(x))
        if concatenated := [feature for concat, feature in features if concat]:
            x = torch.cat([x, *concatenated], dim=1)
        for concat, feature in features:
            x = x if concat else x + feature
        x = x.to(next(self.parameters()).dtype)  # the encodings of a 16-bit network may be float32
        return self.dropout(apply_norm(self.embedding_norm, x, batch))

    def _check_features(self, features: Sequence[tuple[int, Tensor]], rows: int) -> None:
        """Check that node encodings can be concatenated with, or added to, the node features.

        Raises:
            UserError: a shape does not fit; names the encoding.
        """
        for encoding, (concat, feature) in zip(self._writing("x"), features, strict=True):
            shape = getattr(feature, "shape", None)
            if shape is None or not broadcasts_to(shape, (rows, shape[-1] if concat else self.width)):
                name, expected = type(encoding).__name__, (rows, "any" if concat else self.width)
                raise UserError(f"{name} gives nodes {shape and tuple(shape)}; expected {expected}")

    def _writing(self, stream: str) -> list[Encoding]:
        """The encodings that write to a stream."""
        return [encoding for encoding in self.encodings if stream in encoding.writes]

    @property
    def rotations(self) -> list[Encoding]:
        """The encodings that rotate queries and keys."""
        return [encoding for encoding in self.encodings if encoding.rotates]

    def forward(self, batch: GraphBatch) -> Tensor:
        """Predict (B, outputs), (N, outputs) or (K, outputs): a row per graph, node or link, by the schema's level.

        The result is at least float32, whatever the network computes in: a 16-bit loss would round the targets.
        """
        if not isinstance(batch, GraphBatch):
            raise TypeError(
                f"a network takes a GraphBatch, not a {type(batch).__name__}: use GraphBatch.from_data_list(...)"
            )
        out = [self._predicted(batch, masks) for masks in self.draws()]
        return sum(out[1:], out[0]) / len(out)

    def draws(self) -> list[list[Mask]]:
        """The masks of the blocks for each forward pass, one unless masks are redrawn; predictions are averaged."""
        if not self.redraw:
            return [self.masks]
        draws = torch.randint(1 << 31, (1,)).tolist() if self.training else range(self.redraw)
        return [[redraw_mask(mask, draw) for mask in self.masks] for draw in draws]

    def _predicted(self, batch: GraphBatch, masks: Sequence[Mask]) -> Tensor:
        x = self.embed(batch)
        edge_terms = [] if self.edges is None else [self.edges(batch.edge_attr)]
        edge_terms += [encoding.edges(batch) for encoding in self._writing("e")]
        wide = with_virtual_nodes(batch, self.virtual_nodes)
        if self.virtual is not None and isinstance(wide, WideBatch):
            rows = self.virtual.to(x.dtype).repeat(batch.num_graphs, 1)
            x = x.new_zeros(wide.num_nodes, self.width).index_copy(0, wide.real, x)
            x = x.index_copy(0, wide.virtual.flatten(), rows)
        state = State(x, sum(edge_terms[1:], edge_terms[0]) if edge_terms else None, encodings=self.rotations)
        pair_encodings, last_mask = self._writing("p"), None
        states: list[Tensor] = []
        for index, (block, mask) in enumerate(zip(self.blocks, masks, strict=True), 1):
            pairs = mask(wide)
            if pair_encodings and mask != last_mask and uses_mask(block):  # the pair state belongs to one mask
                first, *others = (encoding.pairs(pairs) for encoding in pair_encodings)
                state, last_mask = replace(state, p=sum(others, first)), mask
            previous, state = state, block(state, wide, pairs)
            if self.training and self.stochastic_depth:
                state = stochastic_depth(previous, state, wide, pairs, self.stochastic_depth * index / len(self.blocks))
            if self.jump is not None:
                states.append(state.x)
        for mask in set(masks) - set(self.masks):
            wide.memo.pop(mask)  # the next pass has a different draw
        final = state.x if self.jump is None else self.jump(states)
        if isinstance(wide, WideBatch) and getattr(self.head, "reads_virtual", False):
            final = apply_norm(self.norm, final, wide)  # virtual nodes included, as within blocks
            return self.in_units(self.head(final.index_select(0, wide.real), batch, final[wide.virtual]))
        x = final.index_select(0, wide.real) if isinstance(wide, WideBatch) else final
        return self.in_units(self.head(apply_norm(self.norm, x, batch), batch))

    def in_units(self, out: Tensor) -> Tensor:
        """Convert the head's output (rows, outputs) to the units of the data, in at least float32."""
        out = self.units.restore(out)
        return out.clamp(-MAX_LOG, MAX_LOG).exp() if self.schema.log else out

    def readings(self, device: str = "cpu", half: bool = False) -> set[Reading]:
        """Every mask whose pairs a layer reads, with the demand of that layer or of an encoding, see `Layer.demand`."""
        fixed = [
            (mask, block)
            for mask, block in zip(self.masks, self.blocks, strict=True)
            if not self.redraw or redraw_mask(mask, 0) == mask
        ]
        layers: set[Reading] = {
            (mask, part.demand(device, half) if isinstance(part, Layer) else None)
            for mask, block in fixed
            for part in parts_of(block)
            if reads_of(part) == "pairs" or (isinstance(part, Layer) and part.demand(device, half) is not None)
        }
        preparing = [
            Preparation(type(encoding), encoding.arguments)
            for encoding in self._writing("p")
            if encoding.arguments is not None
        ]
        return layers | {(mask, preparation) for preparation in preparing for mask, block in fixed if uses_mask(block)}

    def set_degrees(self, batches: Iterable[GraphBatch]) -> None:
        """Pass the in-degree histogram of all training batches to the layers that request it."""
        layers: list[Any] = [module for module in self.modules() if getattr(module, "wants_degrees", False)]
        histogram = torch.zeros(1, dtype=torch.long)
        for batch in batches if layers else ():
            degree = batch.in_degree if batch.node_mask is None else batch.in_degree[batch.node_mask]
            counts = degree.bincount(minlength=len(histogram))
            counts[: len(histogram)] += histogram
            histogram = counts
        for layer in layers:
            layer.set_degrees(histogram)

    def set_progress(self, progress: float) -> None:
        """Set the completed share of training, 0 to 1, which selects the active masks of schedules."""
        self.progress = progress
        self.masks = [mask.at(progress) if isinstance(mask, Schedule) else mask for mask in self.scheduled]

    @property
    def masks_in_use(self) -> set[Mask]:
        """The active masks that some layer uses."""
        return {m for m, b in zip(self.masks, self.blocks, strict=True) if uses_mask(b)}

    def masks_of_training(self) -> list[Mask]:
        """The masks that some layer uses at any time during training, in order and without duplicates."""
        used = [mask for mask, block in zip(self.scheduled, self.blocks, strict=True) if uses_mask(block)]
        return list(dict.fromkeys(turn for mask in used for turn in masks_of(mask)))

    def parameter_count(self) -> int:
        """Number of trainable parameters; tied ones count once."""
        return sum(p.numel() for p in self.parameters() if p.requires_grad)

    def blend_weights(self) -> list[float]:
        """The weight of the global branch in each `Blend`."""
        blends = [module for module in self.modules() if isinstance(module, Blend)]
        return [float(torch.as_tensor(blend.weight).detach()) for blend in blends]
