"""Wrong command lines that a user may type, most of them generated from the configuration."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

from gt.cli.config_files import CONFIGS, groups

Line = tuple[str, list[str]]  # a program and its arguments


def message_of(error: pytest.ExceptionInfo) -> str:
    """The message of an error, which must be a single line."""
    text = str(error.value)
    assert text
    assert "\n" not in text
    return text


SMALL = ["data=text", "data.source.path=input.txt", "data.context=8", "model.width=8", "model.depth=1",
         "model.block.attention.heads=1", "logger=csv", "trainer=cpu", "debug=smoke", "hydra.run.dir=run"]  # fmt: skip
OUT_OF_RANGE = {  # values out of range
    "seed": [-1, 1 << 32],
    "data.batch_size": [0, -3],
    "data.eval_batch_size": [0, -1],
    "data.workers": [-1],
    "data.context": [0],
    "data.valid": [0, 1],
    "model.width": [0, -8],
    "model.depth": [-1],
    "model.dropout": [1.0, -0.5],
    "model.block.dropout": [1.5, 1.0, -0.1],
    "model.block.attention.heads": [0, -1, 3],
    "model.block.attention.dropout": [1.0, 2],
    "model.block.attention.backend": ["quick"],
    "model.block.feed_forward.ratio": [0, -2],
    "model.init_std": [0, -1],
    "optim.lr": [0, -1, "nan", "inf"],
    "optim.weight_decay": [-0.1],
    "optim.optimizer.betas": ["[1,1]", "[-1,0.5]"],
    "optim.warmup": [-1],
    "optim.final": [-1, 2],
    "trainer.max_epochs": [0, -2],
    "trainer.max_steps": [0, -2],
    "trainer.limit_train_batches": [0, 0.0, -1, 1.5, 0.0001],
    "trainer.limit_val_batches": [0, -1],
    "trainer.limit_test_batches": [0],
    "trainer.accumulate_grad_batches": [0],
    "trainer.gradient_clip_val": [-1],
    "trainer.val_check_interval": [0, 2.5],
    "trainer.check_val_every_n_epoch": [0],
    "trainer.log_every_n_steps": [0],
    "trainer.devices": [0, "99999", "abc"],
    "trainer.accelerator": ["abacus"],
    "trainer.strategy": ["quick"],
    "callbacks.early_stopping.patience": [-1],
    "callbacks.checkpoint.save_top_k": [-3],
    "callbacks.checkpoint.mode": ["middle"],
    "callbacks.checkpoint.monitor": ["nothing"],
}
MALFORMED = [  # malformed or misspelt arguments
    "seed", "optim.lr=[1", "seed=1,2", "-m seed=glob(z*)", "--mutlirun", "-x", "--cfg", "--cfg task", "-m --cfg job",
    "--experimental-rerun=a.pkl", "~optim", "~nothing", "~optim.nothing", "+seed=1 +seed=2 +sede=1", "optim.lr=${nope}",
    "encoding=[rwse,degre]", "data=text", "data=molecules", "stage=fitt", "experiment=gps_molhvi", "model/locl=gcn",
    "mask._target_=gt.masks.Widow", "mask._target_=gt.masks.Window", "mask._target_=mine.Ring", "optim._target_=3",
    "optim._target_=os.system", "hydra.run.dri=x", "hydra/launcher=nope",
    "hydra.searchpath=[nowhere]", "--config-dir nowhere", "--config-name nothing", "trainer=gpu", "data/sampler=full",
    "model=gps model.block.attention=null model.block.local=null model.block.feed_forward=3", "model=", "resume=a=b",
    "--seed", "=3", "a b=c", "seed=1e3", "data.seed=null", "name=[1]", "optim=sgd",
]  # fmt: skip
REJECTED = [  # by the parts built from them
    "mask=hops mask.hops=-1", "mask=window mask.width=-1", "mask=by_head mask.hops=[1,2,3]", "model.head.pool=[]",
    "mask=by_layer mask.hops=[1,2,3]", "encoding=[rwse] encoding.rwse.steps=0", "encoding=[rwse] encoding.rwse.dim=99",
    "model.head.hidden=-1", "model.head.hidden=9", "model=gps model.block.blend.weight=2", "model.head.tied=1",
    "model._target_=gt.layers.GCN", "model.block.norm._target_=torch.nn.Linear",
]  # fmt: skip
OTHER_PROGRAMS = [  # for programs other than train.py
    "gt.predict", "gt.predict nothing.ckpt", "gt.predict empty", "gt.predict garbage", "gt.predict run -x",
    "gt.predict garbled", "gt.predict garbled --split", "gt.predict truncated",
    "gt.diagnose", "gt.diagnose nothing.ckpt", "gt.diagnose empty --hops 0", "gt.diagnose run -x",
    "gt.demo", "gt.demo hint", "gt.demo hints --seeds 0", "gt.demo hints data=nothing",
    "gt.demo hints --encoding sinusoidal", "gt.demo structure mask.hops=1", "gt.demo equivalence a b",
    "gt.generate", "gt.generate nothing.ckpt", "gt.generate empty", "gt.generate garbage", "gt.generate . --tokens 0",
    "gt.generate empty --tokens many", "gt.generate empty --samples 0", "gt.generate empty --device abacus",
    "gt.lottery --device abacus", "gt.lottery --dtype float8", "gt.lottery --quick", "gt.lottery extra",
    "gt.puzzles --only ring_transfr", "gt.puzzles --seeds 0", "gt.puzzles --processes many",
    "gt.data", "gt.data look", "gt.data inspect", "gt.data inspect nothing", "gt.data inspect molecules",
    "gt.data inspect text data.path=nowhere.txt", "gt.data inspect text data.path=empty", "gt.data bench nothing",
    "gt.spectrum nothing", "gt.spectrum resume=nothing", "gt.spectrum --quick", "gt.spectrum data=nothing",
    "gt.spectrum spectrum.quik=true", "gt.spectrum spectrum.seeds=0", "gt.spectrum spectrum.weights=[2]",
    "gt.spectrum model=gin", "gt.spectrum mask=exphormer", "gt.spectrum seed=1", "gt.spectrum optim.lr=1,2",
    "gt.data inspect text data.path=input.txt data.context=0", "gt.data bench text --seconds soon",
]  # fmt: skip
SUFFIXES = {"text": ".txt", "text_classification": ".csv", "molecules": ".csv", "graph_files": ".graphml",
           "graph_file_nodes": ".json", "csv_graphs": "", "csv_nodes": "", "csv_links": ""}  # fmt: skip
RESUMED = ["nowhere", "empty", "folder", "garbled", "truncated"]


def default_config() -> dict[str, Any]:
    """The default configuration of a training run, as plain containers."""
    with initialize_config_dir(str(CONFIGS), version_base="1.3"):
        config: Any = OmegaConf.to_container(compose("train"))
    return config


def leaves(node: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """The dotted keys of a configuration that hold a plain value, with these values."""
    for key, value in node.items():
        if isinstance(value, dict):
            yield from leaves(value, f"{path}{key}.")
        elif not key.startswith("_"):
            yield f"{path}{key}", value


def misspelt(name: str) -> str:
    """Transpose two letters in the last part of a dotted name, as a typist might."""
    first, _, last = name.rpartition(".")
    place = next((n for n in range(len(last) - 1, 0, -1) if last[n] != last[n - 1]), 0)
    swapped = last[: place - 1] + last[place] + last[place - 1] + last[place + 1 :] if place else last + "q"
    return f"{first}.{swapped}" if first else swapped


def wrong_lines() -> list[Line]:
    """All wrong command lines, without duplicates."""
    lines: list[Line] = []
    defaults, options = list(leaves(default_config())), groups(CONFIGS)
    for number, (key, value) in enumerate(defaults):
        numeric = isinstance(value, int | float)
        if number % 2:
            lines.append(("train", [f"{key}=[many]" if numeric else f"{key}={{wrong:1}}"]))
        elif number % 8 == 0:
            lines.append(("train", [f"{misspelt(key)}=1"]))
    for group in options:
        lines.append(("train", [f"{group}=nothing"]))
        lines.append(("train", [f"{misspelt(group)}={options[group][0]}"]))
    lines += [("train", [*SMALL, f"{key}={value}"]) for key, values in OUT_OF_RANGE.items() for value in values]
    lines += [("train", line.split(" ") if line != "a b=c" else [line]) for line in MALFORMED]
    lines += [("train", [*SMALL, *line.split()]) for line in REJECTED]
    for source, suffix in SUFFIXES.items():
        for path in ("nowhere", "empty", f"{source}{suffix}"):
            lines.append(("train", [f"data={source}", f"data.path={path}", "logger=csv", "hydra.run.dir=run"]))
    lines += [("train", [f"resume={folder}"]) for folder in RESUMED]
    lines += [(line.split()[0], line.split()[1:]) for line in OTHER_PROGRAMS]
    return list({f"{program} {' '.join(words)}": (program, words) for program, words in lines}.values())


def write_files(folder: Path) -> None:
    """Write the files that the command lines name."""
    (folder / "input.txt").write_text("".join(f"{a} and {b} make {a + b};\n" for a in range(9) for b in range(9)))
    (folder / "empty").touch()
    noise = bytes(range(128, 256)) * 40
    (folder / "garbage").write_bytes(noise)
    for source, suffix in SUFFIXES.items():
        (folder / f"{source}{suffix}").write_bytes(noise)
    (folder / "folder").mkdir()
    for name in ("garbled", "truncated"):
        (folder / name / "checkpoints").mkdir(parents=True)
        (folder / name / ".hydra").mkdir()
        for checkpoint in ("best", "last"):
            (folder / name / "checkpoints" / f"{checkpoint}.ckpt").write_bytes(noise if name == "garbled" else b"")
        with initialize_config_dir(str(CONFIGS), version_base="1.3"):
            OmegaConf.save(compose("train", overrides=SMALL[:-1]), folder / name / ".hydra" / "config.yaml")
