"""Peak memory of sampled training and chunked evaluation on large graphs, each run in its own process."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
SAMPLERS = ["neighbours", "partition", "clusters"]


def run(sampler: str, nodes: int, edges: int, steps: int, folder: Path) -> dict[str, float]:
    command = [sys.executable, "-m", "tests.data.large_graph", sampler, *map(str, (nodes, edges, steps)), str(folder)]
    process = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert process.returncode == 0, process.stderr
    return json.loads(process.stdout.splitlines()[-1])


def test_small_graph_trains_and_validates(tmp_path):
    result = run("neighbours", 3_000, 30_000, 2, tmp_path)
    assert 1.5 < result["valid_loss"] < 3.5
    assert result["peak_gib"] < 4


@pytest.mark.slow
@pytest.mark.parametrize("sampler", SAMPLERS)
def test_million_nodes_fit_in_8_gib(sampler, tmp_path):
    result = run(sampler, 1_000_000, 10_000_000, 6, tmp_path)
    print(json.dumps(result))
    assert result["peak_gib"] < 8
    assert 1.5 < result["valid_loss"] < 3.5
