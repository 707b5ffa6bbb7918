"""Custom classes and configuration files outside the package: found, validated, trained and loaded."""

import json
import sys

import pytest
import torch
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

import gt
import gt.train.run
import train
from gt.cli.command import prepare_arguments
from gt.cli.composing import compose_config
from gt.cli.config_files import CONFIGS
from gt.errors import UserError
from tests.cli.sweeps import restore_logging  # noqa: F401  a fixture

MODULE = '''
from dataclasses import dataclass
import torch
from torch import nn
from gt.encodings import Encoding
from gt.heads import Mean, Pool
from gt.masks.base import Mask

@dataclass(frozen=True)
class Ring(Mask):
    """A node reads itself and as many after it, around the end of its graph."""

    size: int

    def keys(self, batch):
        node = torch.arange(batch.num_nodes)
        first, count = batch.ptr[batch.batch], batch.sizes[batch.batch]
        read = [first + (batch.position + step) % count for step in range(self.size + 1)]
        return torch.unique(torch.cat([node * batch.num_nodes + other for other in read]))

@dataclass(frozen=True)
class Wide(Ring):
    width: list[int]

def scaled(prediction, target, scale=2.0):
    return scale * nn.functional.cross_entropy(prediction, target)

class Counts(Encoding):
    """In-degrees of nodes and of edges' targets, and whether a pair is a node and itself."""

    writes = ("x", "e", "p")

    def build(self, width, schema):
        self.maps = nn.ModuleDict({stream: nn.Linear(1, width) for stream in self.writes})
        for linear in self.maps.values():
            nn.init.ones_(linear.weight)

    def nodes(self, batch):
        return self.maps["x"](batch.in_degree[:, None].float())

    def edges(self, batch):
        return self.maps["e"](batch.in_degree[batch.edge_index[1]][:, None].float())

    def pairs(self, pairs):
        return self.maps["p"]((pairs.edges[0] == pairs.edges[1])[:, None].float())

class Gated(Pool):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.weigh = nn.Linear(width, 1)

    def forward(self, x, batch):
        return Mean()(self.weigh(x).sigmoid() * x, batch)
'''


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """The working directory, outside the project, with modules, configuration files and data."""
    (tmp_path / "mine.py").write_text(MODULE)
    (tmp_path / "broken.py").write_text("1 / 0\n")
    (tmp_path / "lacking.py").write_text("import a_library_that_is_not_installed\n")
    (tmp_path / "parts").mkdir()
    (tmp_path / "parts" / "lacking.py").write_text("import torch\n\ntorch.no_such_thing\n")
    for name, text in {
        "mask/ring": "_target_: mine.Ring\nsize: 2\n",
        "mask/wrong": "_target_: mine.Ring\nsizes: 2\n",
        "experiment/own": "# @package _global_\ndefaults:\n  - override /mask: ring\nmodel:\n  depth: 1\n",
        "experiment/typo": "# @package _global_\nmodel:\n  dpeth: 1\n",
        "experiment/type": "# @package _global_\nmodel:\n  depth: deep\n",
        "experiment/group": "# @package _global_\ndefaults:\n  - override /maks: ring\n",
        "experiment/lost": "# @package _global_\ndefaults:\n  - override /mask: rnig\n",
    }.items():
        path = tmp_path / "conf" / f"{name}.yaml"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    graphs = [
        {
            "graph": {"label": "ab"[n % 2]},
            "nodes": [{"id": i, "kind": "xy"[(i * n) % 2]} for i in range(3 + n % 3)],
            "links": [{"source": i, "target": i + 1} for i in range(2 + n % 3)],
        }
        for n in range(40)
    ]
    (tmp_path / "graphs.jsonl").write_text("".join(json.dumps(graph) + "\n" for graph in graphs))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [path for path in sys.path if path != str(tmp_path)])
    yield tmp_path
    sys.modules.pop("mine", None)


def test_class_in_the_working_directory_replaces_a_target(folder):
    swap = ["mask._target_=mine.Ring", "mask.size=2", "seed=1"]
    checked = ["mask._target_=mine.Ring", "+mask.size=2", "seed=1"]
    assert prepare_arguments(swap) == checked
    assert OmegaConf.to_container(compose_config(checked).mask) == {"_target_": "mine.Ring", "size": 2}
    printable = prepare_arguments([*swap, "--cfg", "job"])
    with initialize_config_dir(str(CONFIGS), version_base="1.3"):
        cfg = compose("train", printable[2:])
    assert cfg == compose_config(checked)


def test_class_in_a_later_file_drops_unknown_options(folder):
    for name, text in {
        "model/own": "defaults:\n  - /model/gps@_here_\n  - _self_\nblock:\n  local:\n    _target_: gt.layers.GCN\n",
        "experiment/after": "# @package _global_\ndefaults:\n  - override /model: own\n"
        "model:\n  block:\n    local:\n      dropout: 0.1\n",
    }.items():
        (folder / "conf" / name).parent.mkdir(exist_ok=True)
        (folder / "conf" / f"{name}.yaml").write_text(text)
    search = "hydra.searchpath=[conf]"
    local = compose_config(prepare_arguments([search, "model=own"])).model.block.local
    assert OmegaConf.to_container(local) == {"_target_": "gt.layers.GCN", "_partial_": True}
    for arguments in (["model=own", "model.block.local.dropout=0.1"], ["experiment=after"]):
        with pytest.raises(UserError, match=r"unknown key 'model\.block\.local\.dropout'"):
            prepare_arguments([search, *arguments])


def test_group_choice_overridden_by_a_file_is_rejected(folder):
    (folder / "conf" / "experiment").mkdir(exist_ok=True)
    (folder / "conf" / "experiment" / "fixed.yaml").write_text(
        "# @package _global_\nmask:\n  _target_: gt.masks.Window\n  width: 3\n"
        "optim:\n  schedule:\n    _target_: torch.optim.lr_scheduler.ExponentialLR\n    gamma: 0.5\n"
    )
    fixed = ["hydra.searchpath=[conf]", "experiment=fixed"]
    assert compose_config(prepare_arguments(fixed)).mask == {"_target_": "gt.masks.Window", "width": 3}
    assert compose_config(prepare_arguments([*fixed, "mask=window"])).mask.width == 3
    with pytest.raises(UserError, match=r"^optim/schedule=plateau has no effect: .*fixed\.yaml sets"):
        prepare_arguments([*fixed, "optim/schedule=plateau"])
    with pytest.raises(UserError, match=r"^mask=hops .*; to keep it, add mask\._target_=gt\.masks\.Hops$"):
        prepare_arguments([*fixed, "-m", "mask=window,hops"])
    assert (
        compose_config(prepare_arguments([*fixed, "mask=hops", "mask._target_=gt.masks.Hops"])).mask._target_
        == "gt.masks.Hops"
    )


def test_replaced_class_keeps_the_options_it_accepts(folder):
    (folder / "steps.py").write_text("import torch\n\nclass Sign(torch.optim.SGD):\n    pass\n")
    swap = ["optim.optimizer._target_=steps.Sign", "optim.optimizer.momentum=0.5"]
    optimizer = compose_config(prepare_arguments(swap)).optim.optimizer
    assert OmegaConf.to_container(optimizer) == {
        "_target_": "steps.Sign", "_partial_": True, "fused": True, "momentum": 0.5,
    }  # fmt: skip
    optim = compose_config(
        prepare_arguments(["++optim.schedule={_target_:torch.optim.lr_scheduler.ConstantLR,factor:1}"])
    ).optim
    assert optim.schedule == {"_target_": "torch.optim.lr_scheduler.ConstantLR", "factor": 1, "_partial_": True}
    masks = compose_config(
        prepare_arguments(["mask=causal_window", "mask.masks.0._target_=mine.Ring", "mask.masks.0.size=1"])
    ).mask
    assert masks.masks[0] == {"_target_": "mine.Ring", "size": 1}
    loss = compose_config(prepare_arguments(["loss._target_=mine.scaled", "loss._partial_=true", "loss.scale=3"])).loss
    assert loss == {"_target_": "mine.scaled", "_partial_": True, "scale": 3}


def test_sweep_jobs_drop_options_unknown_to_their_class(folder, monkeypatch):
    optimizers = []
    monkeypatch.setattr(gt.train.run, "run", lambda cfg: optimizers.append(OmegaConf.to_container(cfg.optim.optimizer)))
    targets = ["torch.optim.AdamW", "torch.optim.SGD", "torch.optim.Muon"]
    sweep = ["-m", f"optim.optimizer._target_={','.join(targets)}", "hydra.sweep.dir=sweep", "logger=csv"]
    monkeypatch.setattr(sys, "argv", ["train.py", *sweep])
    train.command()
    common = {"_partial_": True}
    assert optimizers == [
        {"_target_": targets[0], "betas": [0.9, 0.999], "fused": True, **common},
        {"_target_": targets[1], "fused": True, **common},
        {"_target_": targets[2], **common},
    ]
    for number, section in enumerate(optimizers):
        saved = OmegaConf.load(folder / "sweep" / str(number) / ".hydra" / "config.yaml")
        assert OmegaConf.to_container(saved.optim.optimizer) == section


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["mask._target_=mine.Ring"], "mask.size is not set: give mask.size=VALUE"),
        (["mask._target_=mine.Rnig"], "mask._target_: there is nothing called 'mine.Rnig' to import"),
        (["mask._target_=nothing.Ring"], "mask._target_: there is nothing called 'nothing.Ring' to import"),
        (["mask._target_=mine"], "mask._target_: 'mine' cannot be called"),
        (["mask._target_=mine..Ring"], "mask._target_: there is nothing called 'mine..Ring' to import"),
        (["mask._target_=broken.Ring"], "mask._target_: 'broken.Ring' cannot be imported: ZeroDivisionError"),
        (["mask._target_=lacking.Ring"], "mask._target_: 'lacking.Ring' cannot be imported: ModuleNotFoundError: No"),
        (["mask._target_=parts.lacking.Ring"], "mask._target_: 'parts.lacking.Ring' cannot be imported: Attribute"),
        (["mask._target_=mine.Ring", "mask.size=2", "mask.hops=1"], "unknown key 'mask.hops': there are size"),
        (["-m", "mask._target_=gt.masks.Hops,mine.Ring"], "mask.size is not set: give mask.size=VALUE"),
        (["-m", "mask._target_=mine.Ring,gt.masks.Hops", "mask.size=2"], "unknown key 'mask.size': there are hops"),
        (["loss._target_=mine.scaled"], "loss.prediction is not set: give loss.prediction=VALUE, or loss._partial_="),
        (["mask=window", "mask._target_=mine.Wide"], "mask.width=8 has the wrong type: it should be a list"),
        (["mask._target_=mine.Ring", "mask.size=two"], "mask.size='two' has the wrong type: it should be a whole"),
        (["--config-dir", "conf", "mask=rnig"], "no option 'rnig' in group 'mask': did you mean 'ring'?"),
        (["--config-dir=conf", "mask=wrong"], "conf/mask/wrong.yaml: unknown key 'mask.sizes': did you mean 'size'?"),
        (["hydra.searchpath=[conf]", "experiment=typo"], "conf/experiment/typo.yaml: unknown key 'model.dpeth': did"),
        (["-cd", "conf", "experiment=type"], "conf/experiment/type.yaml: model.depth='deep' has the wrong type"),
        (["-cd", "conf", "experiment=group"], "conf/experiment/group.yaml: no group 'maks': did you mean 'mask'?"),
        (["experiment=lost", "-cd", "conf"], "conf/experiment/lost.yaml: no option 'rnig' in group 'mask': did you"),
        (["--config-dir", "conf", "mask=ring", "modle.depth=1"], "unknown key 'modle': did you mean 'model'?"),
        (["--config-dir", "conf"], None),
        (["--config-dir", "nowhere"], "there is no configuration folder at nowhere"),
        (["hydra.searchpath=[pkg://nowhere]"], "there is no configuration folder at pkg://nowhere"),
        (["--config-name", "trian"], "Cannot find primary config 'trian'."),
    ],
)
def test_custom_folders_and_classes_are_validated(arguments, message, folder):
    if message is None:
        assert prepare_arguments(arguments) == arguments
        return
    with pytest.raises(UserError) as caught:
        prepare_arguments(arguments)
    assert str(caught.value).startswith(message)


@pytest.mark.parametrize(
    "arguments",
    [
        ["--config-dir", "conf", "experiment=own", "mask.size=1"],
        ["hydra.searchpath=[conf]", "experiment=own", "mask.size=1"],
        ["mask._target_=mine.Ring", "mask.size=1", "model.depth=1"],
    ],
)
def test_custom_parts_are_trained_and_loaded_if_trusted(arguments, folder, monkeypatch, capsys):
    options = [
        "data=graph_files", "data.path=graphs.jsonl", "data.target=label", "model.width=8", "encoding=none",
        "model.block.attention.heads=1", "logger=csv", "trainer=cpu", "debug=smoke", "hydra.run.dir=run",
        "model.head.pool=[{_target_:mine.Gated,_partial_:true}]",
    ]  # fmt: skip
    monkeypatch.setattr(sys, "argv", ["train.py", *arguments, *options])
    train.command()
    path = folder / "run" / "checkpoints" / "best.ckpt"
    with pytest.raises(UserError) as caught:
        gt.load(path)
    assert "mine.Gated" in str(caught.value)
    assert "mine.Ring" in str(caught.value)
    assert "trust=True" in str(caught.value)
    task = gt.load(path, trust=True)
    assert str(task.net.masks[0]) == "Ring(size=1)"
    saved = torch.load(path, weights_only=True)["state_dict"]
    assert torch.equal(task.net.head.pools[0].weigh.weight, saved["net.head.pools.0.weigh.weight"])
    assert (folder / "run" / "train.log").read_text().count("parameters") == 1


def test_custom_encoding_is_trained_saved_and_loaded(folder, monkeypatch):
    options = [
        "data=graph_files", "data.path=graphs.jsonl", "data.target=label", "model.width=8", "encoding=none",
        "+encoding.own._target_=mine.Counts", "model.block.attention.heads=1", "model.block.attention.edges=true",
        "model.depth=1", "logger=csv", "trainer=cpu", "debug=smoke", "hydra.run.dir=run",
    ]  # fmt: skip
    monkeypatch.setattr(sys, "argv", ["train.py", *options])
    train.command()
    task = gt.load(folder / "run", trust=True)
    saved = torch.load(folder / "run" / "checkpoints" / "best.ckpt", weights_only=True)
    (encoding,) = task.net.encodings
    for stream, linear in encoding.maps.items():
        assert torch.equal(linear.weight, saved["state_dict"][f"net.encodings.0.maps.{stream}.weight"])
        assert (linear.weight != 1).any(), stream
