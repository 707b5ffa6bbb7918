"""How much memory training by samples and evaluation in chunks take, in processes of their own."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
SAMPLERS = ["neighbours", "partition", "clusters"]


def run(sampler: str, nodes: int, edges: int, steps: int, folder: Path) -> dict[str, float]:
    command = [sys.executable, "-m", "tests.data.large_graph", sampler, *map(str, (nodes, edges, steps)), str(folder)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def test_a_sampled_run_ends_with_exact_validation(tmp_path):
    found = run("neighbours", 3_000, 30_000, 2, tmp_path)
    assert 1.5 < found["valid_loss"] < 3.5
    assert found["peak_gib"] < 4


@pytest.mark.slow
@pytest.mark.parametrize("sampler", SAMPLERS)
def test_a_million_nodes_and_ten_million_edges_within_8_gib(sampler, tmp_path):
    found = run(sampler, 1_000_000, 10_000_000, 6, tmp_path)
    print(json.dumps(found))
    assert found["peak_gib"] < 8
    assert 1.5 < found["valid_loss"] < 3.5
