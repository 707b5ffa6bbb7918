"""Every preset of configs/experiment composes, has its published number of parameters, and trains for one step."""

import re
from dataclasses import replace
from functools import partial

import pytest
import torch
from hydra import compose, initialize_config_dir
from ogb.utils.features import get_atom_feature_dims, get_bond_feature_dims
from torch_geometric.data import Data

from gt import GraphBatch
from gt.cli.config import check
from gt.cli.config_files import CONFIGS
from gt.data.own.positions import Positions
from gt.encodings import Laplacian, RandomWalk
from gt.losses import loss
from gt.schema import Schema
from gt.train.network import build, network_config, rehearse
from tests.graphs import path, random_graph

ATOMS, BONDS = tuple(get_atom_feature_dims()), tuple(get_bond_feature_dims())
MOLECULE = partial(Schema, node_vocab=ATOMS, edge_vocab=BONDS, kind="binary")
ZINC = Schema((21,), edge_vocab=(4,), kind="regression")  # atom types that occur, of the 28 that GPS counts
PIXELS = partial(Schema, edge_floats=1, outputs=10)
REGIONS = partial(Schema, node_floats=14, edge_floats=2, level="node")
NODES = partial(Schema, level="node")
SUPERPIXELS = {"cifar10": PIXELS(node_floats=5), "mnist": PIXELS(node_floats=3)}
COMMUNITIES = {"pattern": NODES(node_floats=3, outputs=2), "cluster": NODES(node_floats=7, outputs=6)}
IMAGES = {"pascalvoc_sp": REGIONS(outputs=21), "coco_sp": REGIONS(outputs=81)}
CALLS = Schema(node_floats=5, outputs=5)
PROTEINS = Schema((1,), edge_floats=7, outputs=37)
TEXT = Schema((50_257,), level="node", outputs=50_257, max_nodes=1024)
CODE = Schema((98, 10_030, 21), edge_vocab=(2, 2), outputs=5002, positions=5)
PUBLISHED = {  # schema, published number of parameters, and our difference from it, which the file explains
    "zinc_gps": (ZINC, 423_717, -7 * (64 - 28)),
    "molhiv_gps": (MOLECULE(), 558_625, 64 - 16),
    "gps_molhiv": (MOLECULE(), 558_625, 64 - 16),
    "molpcba_gps": (MOLECULE(outputs=128), 9_744_496, 384 - 20),
    "peptides_func_gps": (MOLECULE(outputs=10), 504_362, 96 - 16),
    "peptides_struct_gps": (MOLECULE(outputs=11, kind="regression"), 504_459, 96 - 16),
    "pcqm4mv2_gps_small": (MOLECULE(kind="regression"), 6_152_001, 304 - 20),
    "pcqm4mv2_gps_medium": (MOLECULE(kind="regression"), 19_414_641, 384 - 20),
    "pcqm4mv2_gps_deep": (MOLECULE(kind="regression"), 13_807_345, 256 - 20),
    "zinc_grit": (ZINC, 473_473, 0),
    "peptides_func_grit": (MOLECULE(outputs=10), 443_338, 96),
    "cifar10_gps": (SUPERPIXELS["cifar10"], 112_726, 0),
    "mnist_gps": (SUPERPIXELS["mnist"], 115_394, 0),
    "pcqm_contact_gps": (MOLECULE(level="link"), 512_704, 96 - 16),
    "pascalvoc_sp_gps": (IMAGES["pascalvoc_sp"], 510_453, 0),
    "coco_sp_gps": (IMAGES["coco_sp"], 516_273, 0),
    "pattern_gps": (COMMUNITIES["pattern"], 337_201, -64 + 65),
    "cluster_gps": (COMMUNITIES["cluster"], 502_054, -48),
    "molhiv_gnn_plus": (MOLECULE(), 1_076_633, 0),
    "molpcba_gnn_plus": (MOLECULE(outputs=128), 6_016_860, 0),
    "ppa_gnn_plus": (PROTEINS, 5_547_557, 0),
    "code2_gnn_plus": (CODE, 29_865_906, 0),
    "peptides_func_gnn_plus": (MOLECULE(outputs=10), 507_351, 0),
    "coco_sp_gnn_plus": (IMAGES["coco_sp"], 508_589, 0),
    "cifar10_gnn_plus": (SUPERPIXELS["cifar10"], 116_490, 0),
    "mnist_gnn_plus": (SUPERPIXELS["mnist"], 118_940, 0),
    "malnet_tiny_gnn_plus": (CALLS, 550_905, -2 * 100),
    "zinc_gnn_plus": (ZINC, 413_355, -21 * 70),
    "cluster_gnn_plus": (COMMUNITIES["cluster"], 474_574, -(21 + 1) * 56),
    "pattern_gnn_plus": (COMMUNITIES["pattern"], 466_001, -(33 + 1) * 64 + 65),
    "cifar10_exphormer": (SUPERPIXELS["cifar10"], 111_095, 7_491),
    "mnist_exphormer": (SUPERPIXELS["mnist"], 111_015, 7_507),
    "pattern_exphormer": (COMMUNITIES["pattern"], 91_045, 6_277),
    "cluster_exphormer": (COMMUNITIES["cluster"], 282_970, 19_356),
    "pascalvoc_sp_exphormer": (IMAGES["pascalvoc_sp"], 509_301, 37_536),
    "coco_sp_exphormer": (IMAGES["coco_sp"], 498_993, 37_224),
    "malnet_tiny_exphormer": (CALLS, 286_277, 16_640),
    "malnet_tiny_gps": (CALLS, 527_237, -5 * 64),
    "ppa_gps": (PROTEINS, 3_434_533, -3 * 256),
    "code2_gps": (CODE, 12_454_066, -4 * 256),
    "products_sage": (NODES(node_floats=100, outputs=47), 433_047, 0),
    "proteins_gat": (NODES(node_floats=8, edge_floats=8, outputs=112, kind="binary"), 2_943_472, 357_120),
    "shakespeare_char": (Schema((65,), level="node", outputs=65, max_nodes=64), 804_096, 0),
}
UNPUBLISHED = {  # schema, and the number of parameters stated in the file
    "peptides_struct_gnn_plus": (MOLECULE(outputs=11, kind="regression"), 492_897),
    "pascalvoc_sp_gnn_plus": (IMAGES["pascalvoc_sp"], 555_486),
    "pcqm_contact_gcn": (MOLECULE(level="link"), 453_210),
    "zinc_graphormer": (ZINC, 483_433),
    "minesweeper_gcn": (NODES(node_floats=7, outputs=2), 101_506),
    "minesweeper_polynormer": (NODES(node_floats=7, outputs=2), 10_537_474),
    "roman_empire_gcn": (NODES(node_floats=300, outputs=18), 4_900_370),
    "arxiv_gcn": (NODES(node_floats=128, outputs=40), 2_652_200),
    "cora_gcn": (NODES(node_floats=1433, outputs=7), 23_063),
    "wikitext103_gpt": (TEXT, 124_337_664),
}
PRESETS = {name: (schema, count + more) for name, (schema, count, more) in PUBLISHED.items()} | UNPUBLISHED


def compose_preset(name):
    overrides = ["data.source.path=book.txt"] if name == "shakespeare_char" else []
    with initialize_config_dir(str(CONFIGS), version_base="1.3"):
        return compose("train", [f"experiment={name}", *overrides])


def random_batch(schema, encodings):
    """A batch of two random graphs of a schema, with the inputs that the encodings need."""
    graphs = []
    for seed, nodes in enumerate((5, 3)):
        graph = path(nodes, seed) if schema.max_nodes else random_graph(nodes, seed, density=0.6)
        rows = {"x": (nodes, schema.node_vocab, schema.node_floats)}
        rows["edge_attr"] = (graph.num_edges, schema.edge_vocab, schema.edge_floats)
        for key, (count, vocab, floats) in rows.items():
            columns = [torch.randint(0, most, (count, 1)) for most in vocab] or [torch.randn(count, floats)]
            graph[key] = torch.cat(columns, 1)
        targets = nodes if schema.level == "node" else 1
        classes = (targets, schema.positions) if schema.positions > 1 else (targets,)
        draws = {
            "multiclass": lambda size=classes: torch.randint(0, schema.outputs, size),
            "binary": lambda rows=targets: torch.randint(0, 2, (rows, schema.outputs)).float(),
            "regression": lambda rows=targets: torch.randn(rows, schema.outputs),
        }
        graph.y = draws[schema.kind]()
        for encoding in encodings:
            if isinstance(encoding, RandomWalk):
                graph.random_walk = torch.rand(nodes, encoding.steps)
            if isinstance(encoding, Laplacian):
                graph.laplacian_vectors, graph.laplacian_values = torch.randn(2, nodes, encoding.k)
        graphs.append(graph)
    batch = GraphBatch.from_data_list(graphs)
    if schema.level == "link":
        batch.links, batch.y = torch.tensor([[0, 3, 5, 7], [4, 3, 7, 6]]), torch.tensor([[1.0], [0], [1], [0]])
    return batch


def test_presets_are_complete():
    files = {file.stem for file in (CONFIGS / "experiment").glob("*.yaml")} - {"spectrum"}
    assert files == PRESETS.keys()


@pytest.mark.parametrize("name", PRESETS)
def test_preset_has_its_published_size_and_trains(name):
    cfg, (schema, parameters) = compose_preset(name), PRESETS[name]
    check(cfg)
    config = network_config(cfg)
    with torch.device("cpu" if "PyGConvolution" in str(config) else "meta"):  # PyG layers are run once when built
        assert build(config, schema).parameter_count() == parameters
        rehearse(config)  # as every command does before reading its data
    if name != "shakespeare_char":  # a smaller network, for smaller data with the same columns
        config |= {"model": config["model"] | {"width": 48, "depth": 2}}
        vocab, floats = tuple(min(most, 30) for most in schema.node_vocab), min(schema.node_floats, 30)
        schema = replace(schema, node_vocab=vocab, node_floats=floats, outputs=min(schema.outputs, 30))
    torch.manual_seed(0)
    net = build(config, schema)
    batch, before = random_batch(schema, net.encodings), [parameter.clone() for parameter in net.parameters()]
    value = loss(schema, net(batch), batch.y)
    value.backward()
    torch.optim.Adam(net.parameters(), 1e-3).step()
    assert value.isfinite()
    changed = [bool((a != b).any()) for a, b in zip(before, net.parameters(), strict=True)]
    # biases before a batch norm and edge states that are not read later have no gradient
    assert sum(changed) > 0.8 * len(changed)


def test_presets_cite_their_source_and_expected_score():
    for name in PRESETS:
        text = (CONFIGS / "experiment" / f"{name}.yaml").read_text().split("\ndefaults:")[0]
        assert re.search(r"\d{4}|nanoGPT", text), name
        if name in PUBLISHED and "former name" not in text and name != "shakespeare_char":
            assert re.search(r"expected (?:test )?.* 0\.\d+", text.replace("\n#", "")), name


def test_positions_are_appended_to_features():
    data = Data(x=torch.rand(4, 3), pos=torch.rand(4, 2))
    expected = torch.cat([data.x, data.pos], 1)
    assert torch.equal(Positions()(data).x, expected)
