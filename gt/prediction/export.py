"""Export a trained network to files for other programs, each verified against the network."""

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

from gt.data.files import atomic_file, write_bytes
from gt.errors import UserError
from gt.graph import GraphBatch
from gt.prediction.one_graph import OneGraph
from gt.schema import Schema, format_number
from gt.train.low_rank import merged
from gt.train.task import Task

TOLERANCE = 1e-4  # of an exported network, relative to 1 + the magnitude of the original
WEIGHTS, PROGRAM, ONNX, CARD = "weights.safetensors", "model.pt2", "model.onnx", "README.md"
COMPILED = "model-aoti.pt2"


def save_weights(task: Task, folder: Path) -> Path:
    """Write the parameters and buffers of a network as ``.safetensors``, by name, and verify them bit by bit.

    Raises:
        UserError: safetensors is not installed, or the file differs.
    """
    try:
        from safetensors.torch import load_file, save
    except ImportError:
        raise UserError(
            'writing weights needs safetensors, which is not installed: pip install -e ".[export]"'
        ) from None

    state = {name: value.contiguous() for name, value in merged(task.net.state_dict()).items()}
    distinct = {
        name: value.clone() for name, value in state.items()
    }  # the format does not allow shared memory, as of tied weights
    path = folder / WEIGHTS
    write_bytes(path, save(distinct))
    loaded = load_file(path)
    if loaded.keys() != state.keys() or not all(torch.equal(loaded[name], value) for name, value in state.items()):
        raise UserError(f"{path} does not hold what was written")
    return path


def example_of(batches: Sequence[GraphBatch]) -> GraphBatch:
    """The example graph for tracing: a small one with several nodes and edges, as sizes 0 and 1 get specialised.

    Raises:
        UserError: there is none.
    """
    candidates = [batch for batch in batches if batch.num_nodes > 2 and batch.num_edges > 2]
    if not candidates:
        raise UserError("tracing needs an example graph with at least three nodes and three edges: there is none here")
    return min(candidates, key=lambda batch: batch.num_nodes)


def program_of(network: OneGraph, example: GraphBatch) -> ExportedProgram:
    """Trace the network for any number of edges, and of nodes up to what its encodings support.

    Raises:
        UserError: a part of it depends on the values in a batch, which cannot be traced.
    """
    rest = network.inputs(example)
    x, edge_index = rest.pop("x"), rest.pop("edge_index")
    limit = min([1 << 16, *(encoding.longest for encoding in network.net.encodings if encoding.longest)])
    nodes, edges = Dim("nodes", min=1, max=limit), Dim("edges", min=0, max=1 << 24)
    sizes = {name: {0: edges} if name == "edge_attr" else {0: nodes} for name in rest}
    sizes |= {name: {2: nodes, 3: nodes} for name in network.supplied}
    sizes |= {f"hops_{limit}": {1: nodes, 2: nodes} for limit in network.radii}
    try:
        with torch.no_grad(), redirect_stderr(StringIO()):  # a failing trace prints hundreds of lines
            shapes = ({0: nodes}, {1: edges}, sizes)
            return torch.export.export(network, (x, edge_index, rest), dynamic_shapes=shapes, strict=False)
    except Exception as error:  # PyTorch raises all kinds
        raise UserError(f"this network cannot be traced for any size: {reason(error)}") from error


def save_program(program: ExportedProgram, inputs: Sequence[str], path: Path) -> None:
    """Write the traced network as PyTorch's ``.pt2``."""
    with atomic_file(path) as file:
        torch.export.save(program, file)  # it holds the names of inputs


def save_onnx(program: ExportedProgram, inputs: Sequence[str], path: Path) -> None:
    """Write the traced network as ONNX.

    Raises:
        ImportError: onnx or onnxscript is missing.
    """
    import onnx  # noqa: F401  PyTorch's exporter needs both
    import onnxscript  # noqa: F401

    for name in ("torch.onnx", "onnxscript", "onnx_ir"):
        logging.getLogger(name).setLevel(logging.ERROR)  # they warn about skipped steps
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".*LeafSpec", FutureWarning)  # raised by PyTorch's exporter itself
        model: Any = torch.onnx.export(program, input_names=list(inputs), output_names=["prediction"], verbose=False)
    write_bytes(path, model.model_proto.SerializeToString())


def save_compiled(program: ExportedProgram, inputs: Sequence[str], path: Path) -> None:
    """Compile the traced network for this machine's CPU, as an AOTInductor package that runs without Python.

    Raises:
        UserError: there is no C++ compiler.
    """
    from torch._inductor import aoti_compile_and_package, exc  # late: it loads a compiler
    from torch._inductor.cpp_builder import get_cpp_compiler

    try:
        get_cpp_compiler()
    except exc.InvalidCxxCompiler:
        raise UserError("PyTorch finds no C++ compiler: install one (apt install g++), or set CXX") from None
    with warnings.catch_warnings(), atomic_file(path) as file:
        warnings.filterwarnings("ignore", ".*LeafSpec", FutureWarning)  # as in `save_onnx`
        aoti_compile_and_package(program, package_path=file)


def traced_files(compiled: bool) -> list[str]:
    """The names of the files that `save_traced` writes."""
    return [PROGRAM, ONNX, *[COMPILED] * compiled]


def save_traced(
    network: OneGraph,
    example: GraphBatch,
    batches: Sequence[GraphBatch],
    expected: Sequence[Tensor],
    folder: Path,
    compiled: bool = False,
) -> dict[str, float | ImportError | UserError]:
    """Trace a network, write it in PyTorch's format and as ONNX, and verify each file against the network.

    Args:
        example: see `example_of`.
        batches: batches of one graph each; expected: the predictions of the network for them.
        compiled: whether to compile it too, see `save_compiled`.

    Returns:
        For each file name the largest error, see `largest_error`, or why there is no file: a package is missing, or
        the network cannot be exported or gives other predictions there.
    """
    results: dict[str, float | ImportError | UserError] = {}
    try:
        program = program_of(network, example)
    except UserError as error:
        return dict.fromkeys(traced_files(compiled), error)
    formats = ((save_program, run_program), (save_onnx, run_onnx), (save_compiled, run_compiled))
    for name, (write, run) in zip(traced_files(compiled), formats, strict=False):
        path = folder / name
        try:
            write(program, list(network.inputs(example)), path)
            deviation = largest_error(run(path, network, batches), expected)
            if not deviation <= TOLERANCE:
                raise UserError(f"its error of {deviation:.1e} exceeds {TOLERANCE:g}")
            results[name] = deviation
        except Exception as error:  # exporters raise all kinds
            path.unlink(missing_ok=True)  # also of an earlier export
            results[name] = error if isinstance(error, ImportError | UserError) else UserError(reason(error))
    return results


def reason(error: Exception) -> str:
    """Class and first line of an error."""
    text = (str(error).strip().splitlines() or ["no message"])[0]
    return f"{type(error).__name__}: {text:.200}"


def largest_error(answers: Sequence[Tensor], expected: Sequence[Tensor]) -> float:
    """The largest difference, relative to 1 + the magnitude of the expected value."""
    return max(float(((a - e).abs() / (1 + e.abs())).max()) for a, e in zip(answers, expected, strict=True))


def run_program(path: Path, network: OneGraph, batches: Sequence[GraphBatch]) -> list[Tensor]:
    """The predictions of the PyTorch file for each graph."""
    net = torch.export.load(path).module()
    with torch.no_grad():
        return [net(*_arguments(network, batch)) for batch in batches]


def run_compiled(path: Path, network: OneGraph, batches: Sequence[GraphBatch]) -> list[Tensor]:
    """The predictions of the compiled package for each graph."""
    from torch._inductor import aoti_load_package

    net = aoti_load_package(str(path))
    with torch.no_grad():
        return [net(*_arguments(network, batch)) for batch in batches]


def run_onnx(path: Path, network: OneGraph, batches: Sequence[GraphBatch]) -> list[Tensor]:
    """The predictions of the ONNX file for each graph, by onnxruntime.

    Raises:
        ImportError: onnxruntime is missing.
    """
    import onnxruntime

    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    names = {each.name for each in session.get_inputs()}  # unused inputs are missing
    feeds = [{k: v.numpy() for k, v in network.inputs(batch).items() if k in names} for batch in batches]
    return [torch.from_numpy(session.run(None, each)[0]) for each in feeds]


def _arguments(network: OneGraph, batch: GraphBatch) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
    rest = network.inputs(batch)
    return rest.pop("x"), rest.pop("edge_index"), rest


def card(
    name: str,
    schema: Schema,
    result: Mapping[str, Any],
    config: Mapping[str, Any],
    files: Mapping[str, str],
    inputs: str,
) -> str:
    """A model card (Mitchell et al. 2019) in Markdown: network, data, scores, and how to reproduce and use it.

    Args:
        files: a description of each file by name, including those that could not be written.
        inputs: description of the inputs of the traced network; empty without one.
    """
    scores, constant = result.get("scores") or {}, result.get("baseline") or {}
    rows = [
        f"| {key} | {format_number(value)} | {format_number(constant.get(key, math.nan))} |"
        for key, value in scores.items()
    ]
    model = config.get("model") or {}
    return "\n".join(
        [
            "---",
            "library_name: gt",
            "---",
            f"# {name}",
            "",
            f"A graph transformer that {schema.task()}.",
            "",
            f"- network: {model.get('depth')} blocks of width {model.get('width')}, {result.get('parameters', 0):,} "
            "parameters",
            f"- data and command: `{result.get('command', 'unknown')}`",
            f"- commit: {result.get('commit') or 'unknown'}",
            "- intended use: predictions for data like the training data; the scores say nothing about other data",
            "",
            f"| {result.get('split', 'test')} | one run | best constant prediction |",
            "|---|---|---|",
            *rows,
            "",
            "Files:",
            "",
            *(f"- `{name}`: {description}" for name, description in files.items()),
            "",
            *([inputs, ""] if inputs else []),
        ]
    )
