"""``python -m gt.export RUN``: export a trained network for other programs, checked on graphs of the run's data.

Writes ``weights.safetensors`` with a model card, ``model.pt2`` (``torch.export``) and, if onnx, onnxscript and
onnxruntime are installed, ``model.onnx``. The last two take one graph with any number of nodes and edges; attention is
computed with dense matrices. ``--aoti`` also compiles the network for this machine's CPU, ``model-aoti.pt2``.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from gt.cli.program import add_trust, import_from_here, importing, quick_exit
from gt.errors import Parser, UserError, one_line
from gt.schema import pluralise


def arguments(argv: Sequence[str]) -> argparse.Namespace:
    parser = Parser(prog="python -m gt.export", description=__doc__.partition("\n\n")[2])
    parser.add_argument("run", type=Path, help="a run folder or a checkpoint")
    parser.add_argument("overrides", nargs="*", help="data.KEY=VALUE, if the data have moved")
    parser.add_argument("--graphs", type=int, default=100, help="number of graphs on which each file is checked")
    parser.add_argument("--out", type=Path, help="output folder (default: RUN/export)")
    parser.add_argument(
        "--aoti", action="store_true", help="also write model-aoti.pt2, with AOTInductor and a C++ compiler"
    )
    add_trust(parser)
    options = parser.parse_intermixed_args(list(argv))
    if options.graphs < 1:
        raise UserError("--graphs must be 1 or more")
    return options


def main(argv: Sequence[str]) -> None:
    options = arguments(argv)
    import_from_here()
    with importing():  # late, so that --help and typos are answered at once
        from gt.train.checkpoint import checkpoint_in, load
    path = checkpoint_in(options.run)
    task = load(path, options.trust)
    with importing():
        import torch

        from gt.cli.new_data import check_schema, open_run_data
        from gt.data.files import write_bytes
        from gt.prediction import export
        from gt.prediction.asking import single_graphs
        from gt.prediction.models import Models
        from gt.prediction.one_graph import OneGraph
        from gt.train.job import RESULT, read_json
    run = path.resolve().parent.parent
    data = open_run_data(run, options.overrides, options.trust, Models([task]))[1]
    check_schema(task.schema, data.schema)
    folder: Path = options.out or run / "export"
    folder.mkdir(parents=True, exist_ok=True)
    batches = single_graphs(data, options.graphs)
    path = export.save_weights(task, folder)
    print(f"{path}: verified bit by bit")
    files, inputs = {export.WEIGHTS: "parameters and buffers by name"}, ""
    failures: dict[str, list[str]] = {}
    try:
        single, example = OneGraph(task.net), export.example_of(batches)
        with torch.no_grad():
            expected = [task(batch) for batch in batches]
        results = export.save_traced(single, example, batches, expected, folder, options.aoti)
    except UserError as error:
        results = dict.fromkeys(export.traced_files(options.aoti), error)
    for name, result in results.items():
        if isinstance(result, float):
            inputs = single.described(example)
            files[name] = f"within {result:.1e} of the original on {pluralise(len(batches), 'graph')}"
            print(f"{folder / name}: {files[name]}")
        elif isinstance(result, ImportError):
            files[name] = f"not written: {result.name} is not installed"
            print(f'no {name}: {result.name} is not installed: pip install -e ".[export]"')
        else:
            files[name] = f"not written: {result}"
            failures.setdefault(str(result), []).append(f"no {name}")
    result_path = run / RESULT
    scores = read_json(result_path) if result_path.is_file() else {}
    write_bytes(
        folder / export.CARD, export.card(run.name, task.schema, scores, task.hparams["config"], files, inputs).encode()
    )
    print(f"{folder / export.CARD}: the model card")
    if failures:
        raise UserError("; ".join(f"{' and '.join(names)}: {reason}" for reason, names in failures.items()))


if __name__ == "__main__":
    with quick_exit(), one_line():
        main(sys.argv[1:])
