"""Custom layers, encodings, pools, losses, metrics and callbacks that cannot be used: the error names them."""

import re
import sys

import pytest
from hydra.core.global_hydra import GlobalHydra

import train
from gt.layers.steps import broadcasts_to
from tests.cli.sweeps import restore_logging  # noqa: F401  a fixture
from tests.small_runs import write_graphs

WRONG = """
import numpy as np
import torch
import torchmetrics

from gt.encodings import Encoding
from gt.heads import Pool, Sum
from gt.layers import Layer


class Wide(Layer):
    def __init__(self, width):
        super().__init__()
        self.map = torch.nn.Linear(width, width + 1)

    def forward(self, state, batch, pairs):
        return {"x": self.map(state.x)}


class Bare(Wide):
    def forward(self, state, batch, pairs):
        return state.x


class Broken(Wide):
    def forward(self, state, batch, pairs):
        return {"x": self.map(state.x) @ state.x}


class Named(Wide):
    def forward(self, state, batch, pairs):
        return {"X": state.x}


class Far(Wide):
    reads = "edge"

    def forward(self, state, batch, pairs):
        return {"x": state.x}


class Narrow(Encoding):
    def build(self, width, schema):
        self.map = torch.nn.Linear(1, width - 1)

    def nodes(self, batch):
        return self.map(torch.ones(batch.num_nodes, 1))


class Silent(Narrow):
    def nodes(self, batch):
        self.map(torch.ones(batch.num_nodes, 1))


class Keyless(Narrow):
    arrays = ("ones",)

    def compute(self, graphs, progress=iter):
        return {"ones": np.ones((graphs.node_ptr[-1], 1), np.float32)}


class Nameless(Keyless):
    arrays = ()

    def key(self):
        return {"encoding": "nameless", "version": 1}


class AllNodes(Pool):
    def forward(self, x, batch):
        return x


class Nothing(Pool):
    def forward(self, x, batch):
        Sum()(x, batch)


class Number(torch.nn.Module):
    def forward(self, prediction, target):
        return torch.nn.functional.cross_entropy(prediction, target).item()


class Scoreless(torchmetrics.Metric):
    higher_is_better = True

    def update(self, prediction, target):
        pass

    def compute(self):
        pass


class Plain:
    def on_train_epoch_end(self, trainer, module):
        print("an epoch")
"""


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """The working directory, outside the project, from which modules are imported."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [path for path in sys.path if path != str(tmp_path)])
    return tmp_path


def test_updates_broadcast_over_rows():
    assert all(broadcasts_to(shape, (3, 4)) for shape in ((3, 4), (1, 4), (3, 1), (4,), ()))
    assert not any(broadcasts_to(shape, (3, 4)) for shape in ((4, 3), (2, 4), (3, 5), (3,), (1, 3, 4)))


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("model.block.local._target_=wrong.Wide", r"Wide .*9\).* 8\)"),
        ("model.block.local._target_=wrong.Bare", r"Bare returns a Tensor"),
        ("model.block.local._target_=wrong.Broken", r"wrong\.py, line 27, in forward"),
        ("model.block.local._target_=wrong.Named", r"Named returns 'X': did you mean 'x'"),
        ("model.block.local._target_=wrong.Far", r"Far\.reads is 'edge': did you mean 'edges'\?"),
        ("model.block.local._target_=torch_geometric.nn.GINEConv", r"GINEConv .*model/local=pyg"),
        ("encoding.narrow._target_=wrong.Narrow", r"Narrow .*7\).* 8\)"),
        ("encoding.silent._target_=wrong.Silent", r"Silent gives nodes None; .* 8\)"),
        ("encoding.keyless._target_=wrong.Keyless", r"wrong\.Keyless has compute but no key"),
        ("encoding.nameless._target_=wrong.Nameless", r"wrong\.Nameless\.arrays is empty"),
        ("model.head.pool=[{_target_:wrong.AllNodes}]", r"pool AllNodes gives \(\d+, 8\); .* \(\d, 8\)"),
        ("model.head.pool=[{_target_:wrong.Nothing}]", r"pool Nothing gives None"),
        ("loss._target_=wrong.Number", r"loss: no gradient flows through it"),
        ("metrics.plain._target_=wrong.Plain", r"metrics\.plain: a Plain is not a torchmetrics\.Metric"),
        ("metrics.own._target_=wrong.Scoreless", r"metrics\.own: it returns a NoneType"),
        ("callbacks.plain._target_=wrong.Plain", r"callbacks: a Plain is not a pytorch_lightning\.Callback"),
    ],
)
def test_invalid_part_is_named_in_the_error(override, message, folder, monkeypatch, capsys):
    (folder / "wrong.py").write_text(WRONG)
    monkeypatch.setattr(sys, "argv", ["train.py", *write_graphs(folder), "data=graph_files", "data.batch_size=8",
                                      "model=gps", "model.width=8", "model.depth=1", "encoding=none", override,
                                      "trainer=cpu", "logger=csv", "hydra.run.dir=run"])  # fmt: skip
    GlobalHydra.instance().clear()
    with pytest.raises(SystemExit):
        train.command()
    sys.modules.pop("wrong", None)
    (line,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
    assert re.search(message, line)
