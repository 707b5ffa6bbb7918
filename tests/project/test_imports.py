"""Imports within gt/: layers and cycles; and mistakes are reported before slow packages are imported."""

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
# each layer may import those before it
ORDER = ("library", "inference", "parallel", "data", "baselines", "lottery", "train", "prediction", "serving", "cli")
# programs that belong to the command line's layer
PROGRAMS = {"bench", "dashboard", "demo", "diagnose", "doctor", "explain", "export", "generate"}
PROGRAMS |= {"models", "predict", "puzzles", "report", "runs", "serve", "spectrum", "sweep"}


def module_of(path: Path, package: Path = PACKAGE) -> str:
    return ".".join(path.relative_to(package.parent).with_suffix("").parts).removesuffix(".__init__")


def imports(package: Path = PACKAGE) -> dict[str, set[str]]:
    """The modules that each module of the package imports, also inside functions but not for type checkers only."""
    paths = {module_of(path, package): path for path in package.rglob("*.py")}
    dependencies: dict[str, set[str]] = {}
    for module, path in paths.items():
        names = set()
        tree = ast.parse(path.read_text())
        type_checking = {
            id(inner)
            for node in ast.walk(tree)
            if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"
            for inner in ast.walk(node)
        }
        for node in ast.walk(tree):
            if id(node) in type_checking:
                continue
            if isinstance(node, ast.ImportFrom):
                assert not node.level, f"{path}: a relative import"
                names |= {f"{node.module}.{alias.name}" for alias in node.names}
            elif isinstance(node, ast.Import):
                names |= {alias.name for alias in node.names}
        dependencies[module] = {name if name in paths else name.rpartition(".")[0] for name in names} & paths.keys()
    return dependencies


def cycles(dependencies: dict[str, set[str]]) -> set[str]:
    """What remains after repeatedly removing modules that import none of the rest, or are imported by none."""
    rest = set(dependencies)
    while removable := {
        module
        for module in rest
        if not dependencies[module] & rest or not any(module in dependencies[other] for other in rest)
    }:
        rest -= removable
    return rest


def layer_of(module: str) -> int:
    """The index of a module's layer in `ORDER`."""
    parts = module.split(".")
    if len(parts) == 1:  # the package itself
        return 0
    part = "cli" if parts[-1] == "__main__" or parts[1] in PROGRAMS else "library" if parts[1] in LIBRARY else parts[1]
    return ORDER.index(part)


def upward_imports(dependencies: dict[str, set[str]]) -> set[tuple[str, str]]:
    """Imports of a module from a higher layer."""
    return {
        (module, other)
        for module, imported in dependencies.items()
        for other in imported
        if layer_of(module) < layer_of(other)
    }


@pytest.fixture(scope="module")
def dependencies():
    modules = imports()
    del modules["gt"]  # it imports names lazily
    return {module: imported - {"gt"} for module, imported in modules.items()}


def test_no_import_cycles(dependencies):
    assert cycles(dependencies) == set()


def test_folders_import_only_lower_layers(dependencies):
    assert upward_imports(dependencies) == set()
    assert {module.split(".")[1] for module in dependencies} >= LIBRARY


def test_cycles_and_upward_imports_are_detected(tmp_path):
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
    assert cycles(found) == {"gt.graph", "gt.hops"}
    assert upward_imports(found) == {("gt.model", "gt.data.store"), ("gt.train.task", "gt.cli.command")}


def slow_imports(code: str) -> set[str]:
    """The slow packages that a program has imported by its end; Lightning and torchmetrics take seconds."""
    code = f"import sys\n{code}\nprint(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout.split()
    return {"pytorch_lightning", "lightning_fabric", "torchmetrics", "torch._dynamo"} & set(loaded)


LIGHT_MODULES = ("data.graphs", "data.text.language", "data.own.csv_graphs", "data.molecules.molecules")
LIGHT_MODULES += ("data.python.functions", "train.network", "train.optim", "train.checkpoint")


@pytest.mark.parametrize("module", LIGHT_MODULES)
def test_validating_modules_do_not_import_lightning(module):
    assert slow_imports(f"import gt.{module}") == set()


@pytest.mark.parametrize(
    "override",
    ["optim.lr=-1", "model.block.attention.heads=3", "data.batch_size=0", "data.path=x", "trainer.max_epochs=0",
     "callbacks.checkpoint.save_top_k=-2", "trainer.devices=9999 trainer.accelerator=cpu"],
)  # fmt: skip
def test_invalid_value_is_rejected_before_importing_lightning(override):
    command = ["train.py", "model.width=64", *override.split()]
    code = f"sys.argv = {command}; import train\ntry: train.command()\nexcept SystemExit as end: assert end.code == 1"
    assert slow_imports(code) == set()


DAMAGED = {
    "text": b"", "text_classification": b"text,label\na,b\n\x80,c\n", "molecules": b"smiles,y\nC,1\nC,1\n",
    "graph_files": b'{"nodes": [', "csv_graphs": b"node\n1\n",
}  # fmt: skip


@pytest.mark.parametrize("data", DAMAGED)
def test_damaged_file_is_rejected_before_importing_lightning(data, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(CONFIGS.parent))
    suffixes = {"text": "txt", "graph_files": "json"}
    path = tmp_path / ("nodes.csv" if data == "csv_graphs" else f"some.{suffixes.get(data, 'csv')}")
    path.write_bytes(DAMAGED[data])
    argument = tmp_path if data == "csv_graphs" else path
    command = ["train.py", f"data={data}", f"data.path={argument}", "logger=csv", "hydra.run.dir=run"]
    code = f"sys.argv = {command}; import train\ntry: train.command()\nexcept SystemExit as end: assert end.code == 1"
    assert slow_imports(code) == set()
    assert not (tmp_path / "run").exists()


def test_inspecting_data_does_not_import_lightning(tmp_path):
    write_graphs(tmp_path)
    keys = [f"data.path={tmp_path / 'graphs.jsonl'}", f"data.root={tmp_path}", "data.target=y"]
    assert (
        slow_imports(
            f"from gt.cli.show_data import open_dataset\nassert len(open_dataset('graph_files', {keys}).graphs) == 92"
        )
        == set()
    )


@pytest.mark.parametrize("program", ["predict", "diagnose", "explain", "export", "generate"])
def test_invalid_checkpoint_is_rejected_before_importing_lightning(program, tmp_path):
    (tmp_path / "a.ckpt").write_text("none")
    code = f"sys.argv[1:] = [{str(tmp_path / 'a.ckpt')!r}]; from gt import {program}; from gt.errors import UserError"
    call = "main()" if program == "generate" else "main(sys.argv[1:])"
    assert (
        slow_imports(f"{code}\ntry: {program}.{call}\nexcept UserError as error: assert 'a.ckpt is not' in str(error)")
        == set()
    )


def test_opening_data_does_not_import_lightning(tmp_path):
    write_graphs(tmp_path)
    source = f"GraphFiles({str(tmp_path / 'graphs.jsonl')!r}, target='y', root={str(tmp_path / 'built')!r})"
    code = "from gt.data.graphs import GraphData\nfrom gt.data.own.graph_files import GraphFiles"
    assert slow_imports(f"{code}\ndata = GraphData({source})\ndata.open([])\nassert len(data.graphs) == 92") == set()


def test_library_imports_only_itself():
    code = "import sys, gt.model, gt.masks; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout.split()
    assert "gt.masks" in loaded
    assert not {"hydra", "omegaconf", "lightning", "gt.data", "gt.train", "gt.cli"} & set(loaded)
