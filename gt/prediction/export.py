"""A trained network in files for other programs, each checked against what it was made of."""

import logging
import math
import warnings
from collections.abc import Mapping, Sequence
from contextlib import redirect_stderr
from io import StringIO
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.export import Dim, ExportedProgram

from gt.data.files import whole, write_bytes
from gt.errors import UserError
from gt.graph import GraphBatch
from gt.prediction.one_graph import OneGraph
from gt.schema import Schema, number
from gt.train.low_rank import merged
from gt.train.task import Task

CLOSE = 1e-4  # how far an exported network may be from the original, absolutely and as a share
WEIGHTS, PROGRAM, ONNX, CARD = "weights.safetensors", "model.pt2", "model.onnx", "README.md"
COMPILED = "model-aoti.pt2"


def save_weights(task: Task, folder: Path) -> Path:
    """The network's parameters and buffers, by their names, as ``.safetensors``; read again, they are the same bits.

    Raises:
        UserError: safetensors is not installed.
    """
    try:
        from safetensors.torch import load_file, save
    except ImportError:
        raise UserError(
            'weights are written by safetensors, which is not installed: pip install -e ".[export]"'
        ) from None

    state = {name: value.contiguous() for name, value in merged(task.net.state_dict()).items()}
    distinct = {name: value.clone() for name, value in state.items()}  # tied ones share memory, which the format lacks
    path = folder / WEIGHTS
    write_bytes(path, save(distinct))
    again = load_file(path)
    if again.keys() != state.keys() or not all(torch.equal(again[name], value) for name, value in state.items()):
        raise UserError(f"{path} does not hold what was written")
    return path


def example_of(batches: Sequence[GraphBatch]) -> GraphBatch:
    """The graph to trace by: a small one of several nodes and edges, for sizes of 0 and 1 are traced as such.

    Raises:
        UserError: there is none.
    """
    several = [batch for batch in batches if batch.num_nodes > 2 and batch.num_edges > 2]
    if not several:
        raise UserError("none of these graphs has three nodes and three edges, by which a network is traced")
    return min(several, key=lambda batch: batch.num_nodes)


def program_of(one: OneGraph, example: GraphBatch) -> ExportedProgram:
    """The network traced for any number of edges, and of nodes that its encodings serve.

    Raises:
        UserError: a part of it goes by the values in a batch, which no trace follows.
    """
    others = one.inputs(example)
    x, edge_index = others.pop("x"), others.pop("edge_index")
    most = min([1 << 16, *(encoding.longest for encoding in one.net.encodings if encoding.longest)])
    nodes, edges = Dim("nodes", min=1, max=most), Dim("edges", min=0, max=1 << 24)
    sizes = {name: {0: edges} if name == "edge_attr" else {0: nodes} for name in others}
    sizes |= {name: {2: nodes, 3: nodes} for name in one.supplied}
    sizes |= {f"hops_{most}": {1: nodes, 2: nodes} for most in one.radii}
    try:
        with torch.no_grad(), redirect_stderr(StringIO()):  # on which a trace that fails is printed, hundreds of lines
            shapes = ({0: nodes}, {1: edges}, sizes)
            return torch.export.export(one, (x, edge_index, others), dynamic_shapes=shapes, strict=False)
    except Exception as error:  # PyTorch raises whatever it stumbles over
        raise UserError(f"this network cannot be traced for any size: {reason(error)}") from error


def save_program(program: ExportedProgram, inputs: Sequence[str], path: Path) -> None:
    """Write the traced network, of inputs with these names, as PyTorch's ``.pt2``."""
    with whole(path) as file:
        torch.export.save(program, file)  # which knows the names itself


def save_onnx(program: ExportedProgram, inputs: Sequence[str], path: Path) -> None:
    """Write the same as ONNX.

    Raises:
        ImportError: onnx or onnxscript is missing.
    """
    import onnx  # noqa: F401  PyTorch's exporter takes both
    import onnxscript  # noqa: F401

    for name in ("torch.onnx", "onnxscript", "onnx_ir"):
        logging.getLogger(name).setLevel(logging.ERROR)  # they warn of what they skip
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".*LeafSpec", FutureWarning)  # PyTorch's exporter copies its own old classes
        model: Any = torch.onnx.export(program, input_names=list(inputs), output_names=["prediction"], verbose=False)
    write_bytes(path, model.model_proto.SerializeToString())


def save_compiled(program: ExportedProgram, inputs: Sequence[str], path: Path) -> None:
    """Compile the same for this machine's processor, as a package of AOTInductor, which takes no Python to run.

    Raises:
        UserError: there is no C++ compiler.
    """
    from torch._inductor import aoti_compile_and_package, exc  # late: it loads a compiler
    from torch._inductor.cpp_builder import get_cpp_compiler

    try:
        get_cpp_compiler()
    except exc.InvalidCxxCompiler:
        raise UserError("PyTorch finds no C++ compiler: install one (apt install g++), or name it by CXX") from None
    with warnings.catch_warnings(), whole(path) as file:
        warnings.filterwarnings("ignore", ".*LeafSpec", FutureWarning)  # as of the exporter above
        aoti_compile_and_package(program, package_path=file)


def traced_files(compiled: bool) -> list[str]:
    """The names of what `save_traced` writes."""
    return [PROGRAM, ONNX, *[COMPILED] * compiled]


def save_traced(
    one: OneGraph,
    example: GraphBatch,
    batches: Sequence[GraphBatch],
    expected: Sequence[Tensor],
    folder: Path,
    compiled: bool = False,
) -> dict[str, float | ImportError | UserError]:
    """Trace a network, write it as PyTorch's and as ONNX, and hold each file against the network itself.

    Args:
        example: see `example_of`.
        batches: each of one graph; expected: the network's predictions for them.
        compiled: whether to compile it too, see `save_compiled`.

    Returns:
        By name of a file how far it is off, see `furthest`; or why there is none: a package that is not installed, or
        a network that has no such form or another one there.
    """
    results: dict[str, float | ImportError | UserError] = {}
    try:
        program = program_of(one, example)
    except UserError as error:
        return dict.fromkeys(traced_files(compiled), error)
    ways = ((save_program, run_program), (save_onnx, run_onnx), (save_compiled, run_compiled))
    for name, (write, run) in zip(traced_files(compiled), ways, strict=False):
        path = folder / name
        try:
            write(program, list(one.inputs(example)), path)
            off = furthest(run(path, one, batches), expected)
            if not off <= CLOSE:
                raise UserError(f"it is off by {off:.1e} where {CLOSE:g} is allowed")
            results[name] = off
        except Exception as error:  # exporters raise whatever they stumble over
            path.unlink(missing_ok=True)  # that of an earlier export, too
            results[name] = error if isinstance(error, ImportError | UserError) else UserError(reason(error))
    return results


def reason(error: Exception) -> str:
    """The first line of an error of PyTorch's."""
    text = (str(error).strip().splitlines() or ["no message"])[0]
    return f"{type(error).__name__}: {text:.200}"


def furthest(answers: Sequence[Tensor], expected: Sequence[Tensor]) -> float:
    """The largest difference, in units of what is allowed: 1 + the size of what is expected."""
    return max(float(((a - e).abs() / (1 + e.abs())).max()) for a, e in zip(answers, expected, strict=True))


def run_program(path: Path, one: OneGraph, batches: Sequence[GraphBatch]) -> list[Tensor]:
    """What the file says of each graph."""
    net = torch.export.load(path).module()
    with torch.no_grad():
        return [net(*_arguments(one, batch)) for batch in batches]


def run_compiled(path: Path, one: OneGraph, batches: Sequence[GraphBatch]) -> list[Tensor]:
    """What the compiled package says of each graph."""
    from torch._inductor import aoti_load_package

    net = aoti_load_package(str(path))
    with torch.no_grad():
        return [net(*_arguments(one, batch)) for batch in batches]


def run_onnx(path: Path, one: OneGraph, batches: Sequence[GraphBatch]) -> list[Tensor]:
    """What onnxruntime makes of the file for each graph.

    Raises:
        ImportError: onnxruntime is missing.
    """
    import onnxruntime

    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    known = {each.name for each in session.get_inputs()}  # without those that change nothing
    given = [{k: v.numpy() for k, v in one.inputs(batch).items() if k in known} for batch in batches]
    return [torch.from_numpy(session.run(None, each)[0]) for each in given]


def _arguments(one: OneGraph, batch: GraphBatch) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
    others = one.inputs(batch)
    return others.pop("x"), others.pop("edge_index"), others


def card(
    name: str,
    schema: Schema,
    result: Mapping[str, Any],
    config: Mapping[str, Any],
    files: Mapping[str, str],
    inputs: str,
) -> str:
    """A model card (Mitchell et al. 2019) in Markdown: what it is, data, scores, how to repeat and to use it.

    Args:
        files: by name, those written and those that could not be, what is to be said of each.
        inputs: of the traced network; empty where there is none.
    """
    scores, constant = result.get("scores") or {}, result.get("baseline") or {}
    rows = [f"| {key} | {number(value)} | {number(constant.get(key, math.nan))} |" for key, value in scores.items()]
    model = config.get("model") or {}
    return "\n".join(
        [
            "---",
            "library_name: gt",
            "---",
            f"# {name}",
            "",
            f"A graph transformer {schema.task()}.",
            "",
            f"- network: {model.get('depth')} blocks of width {model.get('width')}, {result.get('parameters', 0):,} "
            "parameters",
            f"- data and command: `{result.get('command', 'unknown')}`",
            f"- commit: {result.get('commit') or 'unknown'}",
            "- intended use: predictions for data like those of the training; a score below says nothing of others",
            "",
            f"| {result.get('split', 'test')} | one run | best constant answer |",
            "|---|---|---|",
            *rows,
            "",
            "Files:",
            "",
            *(f"- `{name}`: {about}" for name, about in files.items()),
            "",
            *([inputs, ""] if inputs else []),
        ]
    )
