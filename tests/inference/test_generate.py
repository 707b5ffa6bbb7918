"""The command gt.generate: continued prompts, restored tokenizers, and errors of one line."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import gt
from gt.data.text.tokenizer import BytePairs, Bytes, Characters, loads
from gt.errors import UserError, one_line
from gt.generate import main
from gt.metrics import metrics
from gt.schema import Schema
from gt.train.task import Task
from tests.inference.language_models import single_thread  # noqa: F401  a fixture

ROOT = Path(__file__).parents[2]
CONFIG = {
    "model": {
        "_target_": "gt.model.GraphTransformer", "_partial_": True, "width": 8, "depth": 1,
        "block": {
            "_target_": "gt.layers.ParallelBlock", "_partial_": True,
            "attention": {"_target_": "gt.layers.Attention", "_partial_": True, "heads": 2},
            "norm": {"_target_": "torch.nn.LayerNorm", "_partial_": True},
        },
    },
    "mask": {"_target_": "gt.masks.Causal"},
    "encoding": {"rope": {"_target_": "gt.encodings.Rotary"}},
}  # fmt: skip


def write_checkpoint(path: Path, schema: Schema, config=CONFIG) -> str:
    """Write the checkpoint of an untrained model as a trainer saves it; returns its path."""
    from gt.train.network import build

    torch.manual_seed(0)
    task = Task(build(config, schema), schema, *metrics(schema), config=config)
    state = {"state_dict": task.state_dict(), "hyper_parameters": dict(task.hparams)}
    task.on_save_checkpoint(state)
    torch.save(state, path)
    return str(path)


def text_schema(tokenizer=None, **options) -> Schema:
    tokenizer = tokenizer or Characters("abc \n")
    fields = {"node_vocab": (tokenizer.size,), "level": "node", "outputs": tokenizer.size, "max_nodes": 8}
    return Schema(**fields, tokenizer=tokenizer.dumps(), **options)


def run_command(*arguments: str) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, "-m", "gt.generate", *arguments], cwd=ROOT, env=os.environ | {"OMP_NUM_THREADS": "1"},
        capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip


def test_command_continues_a_prompt(tmp_path):
    path = write_checkpoint(tmp_path / "best.ckpt", text_schema())
    result = run_command(path, "--prompt", "abba", "--tokens", "20", "--samples", "2", "--top-k", "4", "--top-p", "0.9")
    assert result.returncode == 0, result.stderr
    one, two = result.stdout.split("\n---\n")
    assert one[:4] == two[:4] == "abba"
    assert len(one) == 24
    assert len(two) == 24 + len("\n")
    assert result.stderr.startswith("40 characters in ")


def test_tokenizer_is_restored_from_checkpoint(tmp_path):
    task = gt.load(write_checkpoint(tmp_path / "b.ckpt", text_schema(Bytes())))
    assert (task.net.width, task.schema.max_nodes, loads(task.schema.tokenizer).decode([104, 105])) == (8, 8, "hi")


def test_checkpoint_of_other_models_is_rejected(tmp_path, monkeypatch):
    schemas = {
        "graphs": Schema(node_vocab=(5,), outputs=5),
        "nodes": Schema(node_vocab=(5,), level="node", outputs=5, max_nodes=8),
        "labels": Schema(node_vocab=(5,), outputs=2, max_nodes=8, tokenizer=json.dumps({"words": list("abcd")})),
    }
    for name, schema in schemas.items():
        path = write_checkpoint(tmp_path / f"{name}.ckpt", schema)
        monkeypatch.setattr(sys, "argv", ["gt.generate", path])
        with pytest.raises(UserError, match="holds no language model: train one with") as caught:
            main()
        assert "\n" not in str(caught.value)


def test_invalid_arguments_are_reported_in_one_line(tmp_path, monkeypatch, capsys):
    pytest.importorskip("tokenizers")
    causal = write_checkpoint(tmp_path / "good.ckpt", text_schema())
    non_causal = write_checkpoint(
        tmp_path / "ahead.ckpt", text_schema(), CONFIG | {"mask": {"_target_": "gt.masks.Complete"}}
    )
    byte_pairs = write_checkpoint(tmp_path / "pairs.ckpt", text_schema(BytePairs.learn(["abc"], 256)))
    for arguments, message in (
        ((causal, "--prompt", "a\udcff"), "--prompt is not valid UTF-8"),
        ((byte_pairs, "--prompt", "a\udcff"), "--prompt is not valid UTF-8"),
        ((str(tmp_path / "none.ckpt"),), "no checkpoint at"),
        ((non_causal,), "the mask Complete() lets a token read later tokens"),
        ((causal, "--prompt", "abcd"), "the character 'd' is not among the 5 known to this model"),
        ((causal, "--prompt", ""), "there is nothing to continue: give --prompt TEXT"),
        ((causal, "--top-k", "0"), "top-k must be 1 or more, not 0"),
        ((causal, "--temperature", "-1"), "temperature must be 0 or more"),
        ((causal, "--seed", str(1 << 64)), "has more than 64 bits: choose a smaller number"),
        ((causal, "--tokens", "0"), "--tokens and --samples must be 1 or more"),
    ):
        monkeypatch.setattr(sys, "argv", ["gt.generate", *arguments])
        with pytest.raises(SystemExit) as caught, one_line():
            main()
        assert caught.value.code == 1
        error = capsys.readouterr().err
        assert error.startswith("error: ")
        assert error.count("\n") == 1
        assert message in error


def test_recomputation_is_announced_once(tmp_path, monkeypatch, capsys):
    block = CONFIG["model"]["block"] | {"local": {"_target_": "gt.layers.GCN", "_partial_": True}}
    path = write_checkpoint(tmp_path / "a.ckpt", text_schema(), CONFIG | {"model": CONFIG["model"] | {"block": block}})
    monkeypatch.setattr(sys, "argv", ["gt.generate", path, "--tokens", "12", "--prompt", "a"])
    main()
    captured = capsys.readouterr()
    assert captured.err.count("reads the whole text again: message passing along edges") == 1
    assert len(captured.out) == 14
