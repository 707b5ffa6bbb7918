"""Commands that answer at once do not import PyTorch, and ``gt`` imports its names on first use."""

import subprocess
import sys

from gt.cli.config_files import CONFIGS

HELP = """
import runpy, sys
sys.argv = ["train.py", *{arguments}]
try:
    runpy.run_path({path!r}, run_name="__main__")
except SystemExit:
    pass
print("torch" in sys.modules)
"""


def test_help_and_typos_do_not_import_torch(tmp_path):
    for arguments in (["--help"], ["modle=gps"]):
        program = HELP.format(arguments=arguments, path=str(CONFIGS.parent / "train.py"))
        process = subprocess.run(
            [sys.executable, "-c", program], cwd=tmp_path, env={"PYTHONPATH": str(CONFIGS.parent)},
            capture_output=True, text=True, timeout=60, check=False,
        )  # fmt: skip
        assert process.stdout.splitlines()[-1] == "False"


def test_lazily_imported_names_are_available():
    import gt
    from gt.graph import GraphBatch
    from gt.prediction.trained import load

    assert gt.GraphBatch is GraphBatch
    assert gt.load is load
