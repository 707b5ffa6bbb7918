"""Write outputs and gradients of networks on small fixed batches, for `tests/models/test_golden.py` to compare.

``python -m tests.golden.make FOLDER`` writes a file for each configuration. The stored files are from commit 53b9b34.
"""

import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from hydra import compose, initialize_config_dir
from torch import Tensor, nn

from gt.cli.config_files import CONFIGS
from gt.data.static import Shape, pad_batch
from gt.graph import GraphBatch
from gt.schema import Schema
from gt.train.network import build, network_config
from tests.graphs import path, random_graph

SMALL = ["model.width=16", "model.depth=2"]
MOLECULE = {"node_vocab": [5, 5], "edge_vocab": [3], "outputs": 3}
TEXT = {"node_vocab": [5], "level": "node", "outputs": 5, "max_nodes": 12}
REAL = {"node_floats": 4, "node_mean": [0.1] * 4, "node_scale": [2.0] * 4, "level": "node", "outputs": 3}
LINKS = {**MOLECULE, "level": "link", "kind": "binary", "outputs": 1}
NUMBERS = {**MOLECULE, "kind": "regression", "outputs": 2, "mean": [1.0, 2.0], "scale": [3.0, 4.0]}
WALKS = ["encoding=rwse", "encoding.rwse.dim=8"]
CASES: dict[str, tuple[list[str], dict[str, Any]]] = {
    "gps": (["model=gps", "model/local=gated_gcn", *WALKS], MOLECULE),
    "gps_prenorm": (["model=gps", "model/local=gine", "+model.block.prenorm=true", "mask.hops=2", *WALKS], NUMBERS),
    "gps_batch_norm": (["model=gps", "model/norm=batch", "mask=one_hop", *WALKS], MOLECULE),
    "sequential": (
        ["model=gps", "model.block._target_=gt.layers.SequentialBlock", "~model.block.blend", *WALKS],
        MOLECULE,
    ),
    "virtual": (["model=transformer", "mask=exphormer"], MOLECULE),
    "text": (["model=gpt", "mask=causal"], TEXT),
    "rotary": (["model=transformer", "encoding=rope", "mask=window", "mask.width=2"], MOLECULE),
    "edge_gated": (["model=gt", "encoding.laplacian.dim=4", "mask=one_hop"], MOLECULE),
    "gcn_nodes": (["model=gcn", "encoding=none"], REAL),
    "degree": (["model=gin", "encoding=degree"], MOLECULE),
    "plain_gcn": (["model=plain_gcn", "encoding=none"], REAL),
    "static": (["model=gin", "encoding=none"], MOLECULE),
    "layers": (["model=gps", "model/hint=hop_decay", "mask=by_layer", "mask.hops=[1,null]", "encoding=none"], NUMBERS),
    "by_head": (["model=gps", "model/score=gated", "mask=by_head", "encoding=none"], MOLECULE),
    "additive": (["model=transformer", "model/score=additive", "mask=causal_window", "encoding=none"], MOLECULE),
    "links": (["model=gps", "mask=one_hop", "encoding=none"], LINKS),
}


def configured(overrides: list[str]) -> dict[str, Any]:
    """The part of the configuration that defines a network."""
    with initialize_config_dir(str(CONFIGS), version_base=None):
        return network_config(compose("train", [*SMALL, *overrides], return_hydra_config=False))


def batch(name: str, schema: Schema) -> GraphBatch:
    """The input batch of a case."""
    make_graph = path if name == "text" else random_graph
    graphs = []
    for seed, nodes in enumerate((4, 1, 7, 12)):
        graph = make_graph(nodes, seed)
        generator = torch.Generator().manual_seed(seed)
        if schema.node_floats:
            graph.x = torch.randn(nodes, schema.node_floats, generator=generator)
        graph.x = graph.x[:, : len(schema.node_vocab) or schema.node_floats]
        graph.random_walk = torch.rand(nodes, 16, generator=generator)
        graph.laplacian_vectors = torch.randn(nodes, 8, generator=generator)
        graph.laplacian_values = torch.rand(nodes, 8, generator=generator)
        graphs.append(graph)
    packed = GraphBatch.from_data_list(graphs)
    if schema.level == "link":
        packed = replace(packed, links=torch.tensor([[0, 5, 6, 12], [3, 7, 6, 20]]))
    return pad_batch(packed, [Shape(12, 32, 128, 6)], schema) if name == "static" else packed


def computed(net: nn.Module, inputs: GraphBatch) -> dict[str, Tensor]:
    """The outputs of a network in eval mode and in training mode without dropout, and the gradients of the latter."""
    for module in net.modules():
        if hasattr(module, "p"):
            module.p = 0.0
        elif isinstance(getattr(module, "dropout", None), float):
            module.dropout = 0.0
    result = {"eval": net.eval()(inputs).detach()}
    state = {name: value.clone() for name, value in net.state_dict().items()}
    torch.manual_seed(1)  # the signs of eigenvectors are random
    out = net.train()(inputs)
    (out * torch.linspace(-1, 2, out.numel()).view_as(out)).sum().backward()
    gradients = {f"grad {name}": p.grad for name, p in net.named_parameters() if p.grad is not None}
    net.load_state_dict(state)  # running statistics have changed
    return result | {"train": out.detach(), **gradients}


def main(folder: Path) -> None:
    for name, (overrides, properties) in CASES.items():
        schema = Schema.from_dict(properties)
        torch.manual_seed(0)
        config = configured(overrides)
        net = build(config, schema)
        inputs = batch(name, schema)
        saved = {"config": json.dumps(config), "state": net.state_dict(), "computed": computed(net, inputs)}
        torch.save(saved, folder / f"{name}.pt")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
