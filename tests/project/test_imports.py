"""Who imports whom: the library stands by itself, data and training stand on it, and no file waits for its importer."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

from gt.cli.config_files import CONFIGS
from tests.small_runs import write_graphs

PACKAGE = Path(__file__).parents[2] / "gt"
LIBRARY = {
    "graph",
    "allocation",
    "hops",
    "schema",
    "errors",
    "ranges",
    "keys",
    "ranks",
    "sums",
    "dropout",
    "native",
    "linear",
    "transforms",
    "norms",
    "units",
    "features",
    "heads",
    "model",
    "objectives",
}
LIBRARY |= {"losses", "metrics", "task_metrics", "link_metrics", "link_targets"}
LIBRARY |= {"masks", "attention", "encodings", "layers", "huggingface"}
# each may import those before it
ORDER = ("library", "inference", "parallel", "data", "baselines", "lottery", "train", "prediction", "serving", "cli")
# beside the command line
PROGRAMS = {"bench", "dashboard", "demo", "diagnose", "doctor", "explain", "export", "generate"}
PROGRAMS |= {"models", "predict", "puzzles", "report", "runs", "serve", "spectrum", "sweep"}


def module_of(path: Path, package: Path = PACKAGE) -> str:
    return ".".join(path.relative_to(package.parent).with_suffix("").parts).removesuffix(".__init__")


def imports(package: Path = PACKAGE) -> dict[str, set[str]]:
    """The files of the package that each of its files imports, inside functions too but not for type checkers alone."""
    paths = {module_of(path, package): path for path in package.rglob("*.py")}
    arrows: dict[str, set[str]] = {}
    for module, path in paths.items():
        names = set()
        tree = ast.parse(path.read_text())
        checked = {
            id(inner)
            for node in ast.walk(tree)
            if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"
            for inner in ast.walk(node)
        }
        for node in ast.walk(tree):
            if id(node) in checked:
                continue
            if isinstance(node, ast.ImportFrom):
                assert not node.level, f"{path}: a relative import"
                names |= {f"{node.module}.{alias.name}" for alias in node.names}
            elif isinstance(node, ast.Import):
                names |= {alias.name for alias in node.names}
        arrows[module] = {name if name in paths else name.rpartition(".")[0] for name in names} & paths.keys()
    return arrows


def circles(arrows: dict[str, set[str]]) -> set[str]:
    """What is left when files that import nothing that is left, or that nothing left imports, are taken away."""
    left = set(arrows)
    while removable := {
        file for file in left if not arrows[file] & left or not any(file in arrows[other] for other in left)
    }:
        left -= removable
    return left


def height(module: str) -> int:
    """The place of a file's folder in `ORDER`."""
    parts = module.split(".")
    if len(parts) == 1:  # the package itself
        return 0
    part = "cli" if parts[-1] == "__main__" or parts[1] in PROGRAMS else "library" if parts[1] in LIBRARY else parts[1]
    return ORDER.index(part)


def upward(arrows: dict[str, set[str]]) -> set[tuple[str, str]]:
    """Arrows from a file to one of a folder above its own."""
    return {(file, other) for file, others in arrows.items() for other in others if height(file) < height(other)}


@pytest.fixture(scope="module")
def arrows():
    found = imports()
    del found["gt"]  # names that it imports when they are first used
    return {file: others - {"gt"} for file, others in found.items()}


def test_no_circles(arrows):
    assert circles(arrows) == set()


def test_folders_import_those_below_them(arrows):
    assert upward(arrows) == set()
    assert {file.split(".")[1] for file in arrows} >= LIBRARY


def test_the_drawing_sees_circles_and_arrows_up(tmp_path):
    package = tmp_path / "gt"
    files = {
        "masks/__init__.py": "from gt.graph import x",
        "graph.py": "def f():\n    import gt.hops",
        "hops.py": "from gt import graph",
        "data/store.py": "from gt.masks import y",
        "model.py": "from gt.data import store",
        "train/task.py": "from gt.data import store\nfrom gt.cli import command",
        "cli/command.py": "",
        "data/__main__.py": "from gt.cli import command",
    }
    for name, text in files.items():
        (package / name).parent.mkdir(parents=True, exist_ok=True)
        (package / name).write_text(text)
    found = imports(package)
    assert circles(found) == {"gt.graph", "gt.hops"}
    assert upward(found) == {("gt.model", "gt.data.store"), ("gt.train.task", "gt.cli.command")}


def loads(code: str) -> set[str]:
    """What of Lightning and torchmetrics a program has imported by its end; their import takes seconds."""
    code = f"import sys\n{code}\nprint(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout.split()
    return {"pytorch_lightning", "lightning_fabric", "torchmetrics", "torch._dynamo"} & set(loaded)


EARLY = ("data.graphs", "data.text.language", "data.own.csv_graphs", "data.molecules.molecules")
EARLY += ("data.python.functions", "train.network", "train.optim", "train.checkpoint")


@pytest.mark.parametrize("module", EARLY)
def test_what_refuses_most_mistakes_needs_no_lightning(module):
    assert loads(f"import gt.{module}") == set()


@pytest.mark.parametrize(
    "override",
    ["optim.lr=-1", "model.block.attention.heads=3", "data.batch_size=0", "data.path=x", "trainer.max_epochs=0",
     "callbacks.checkpoint.save_top_k=-2", "trainer.devices=9999 trainer.accelerator=cpu"],
)  # fmt: skip
def test_a_wrong_value_is_refused_before_lightning_is_imported(override):
    command = ["train.py", "model.width=64", *override.split()]
    code = f"sys.argv = {command}; import train\ntry: train.command()\nexcept SystemExit as end: assert end.code == 1"
    assert loads(code) == set()


DAMAGED = {
    "text": b"", "text_classification": b"text,label\na,b\n\x80,c\n", "molecules": b"smiles,y\nC,1\nC,1\n",
    "graph_files": b'{"nodes": [', "csv_graphs": b"node\n1\n",
}  # fmt: skip


@pytest.mark.parametrize("data", DAMAGED)
def test_a_small_file_that_is_damaged_is_refused_before_lightning_is_imported(data, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(CONFIGS.parent))
    endings = {"text": "txt", "graph_files": "json"}
    path = tmp_path / ("nodes.csv" if data == "csv_graphs" else f"some.{endings.get(data, 'csv')}")
    path.write_bytes(DAMAGED[data])
    named = tmp_path if data == "csv_graphs" else path
    command = ["train.py", f"data={data}", f"data.path={named}", "logger=csv", "hydra.run.dir=run"]
    code = f"sys.argv = {command}; import train\ntry: train.command()\nexcept SystemExit as end: assert end.code == 1"
    assert loads(code) == set()
    assert not (tmp_path / "run").exists()


def test_a_dataset_is_looked_at_without_lightning(tmp_path):
    write_graphs(tmp_path)
    keys = [f"data.path={tmp_path / 'graphs.jsonl'}", f"data.root={tmp_path}", "data.target=y"]
    assert (
        loads(
            f"from gt.cli.show_data import open_dataset\nassert len(open_dataset('graph_files', {keys}).graphs) == 92"
        )
        == set()
    )


@pytest.mark.parametrize("program", ["predict", "diagnose", "explain", "export", "generate"])
def test_a_wrong_checkpoint_is_refused_before_lightning_is_imported(program, tmp_path):
    (tmp_path / "a.ckpt").write_text("none")
    code = f"sys.argv[1:] = [{str(tmp_path / 'a.ckpt')!r}]; from gt import {program}; from gt.errors import UserError"
    call = "main()" if program == "generate" else "main(sys.argv[1:])"
    assert (
        loads(f"{code}\ntry: {program}.{call}\nexcept UserError as error: assert 'a.ckpt is not' in str(error)")
        == set()
    )


def test_data_can_be_opened_without_lightning(tmp_path):
    write_graphs(tmp_path)
    source = f"GraphFiles({str(tmp_path / 'graphs.jsonl')!r}, target='y', root={str(tmp_path / 'built')!r})"
    code = "from gt.data.graphs import GraphData\nfrom gt.data.own.graph_files import GraphFiles"
    assert loads(f"{code}\ndata = GraphData({source})\ndata.open([])\nassert len(data.graphs) == 92") == set()


def test_the_library_loads_alone():
    code = "import sys, gt.model, gt.masks; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout.split()
    assert "gt.masks" in loaded
    assert not {"hydra", "omegaconf", "lightning", "gt.data", "gt.train", "gt.cli"} & set(loaded)
