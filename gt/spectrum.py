"""``python -m gt.spectrum``: map where a dataset lies between GNN and Transformer.

    python -m gt.spectrum data=NAME [KEY=VALUE ...]   run the map, like python train.py -m experiment=spectrum
    python -m gt.spectrum experiment=NAME             the same with the settings of an experiment
    python -m gt.spectrum FOLDER                      show a finished or partial map again
    python -m gt.spectrum FOLDER FOLDER ... [--out PICTURE.png]   several maps in one picture (default: spectra.png)
    python -m gt.spectrum resume=FOLDER               resume a map, optionally extended, such as by spectrum.seeds=5

Combines every mask radius with every blend weight, from pure message passing to global attention, for several seeds:
spectrum.radii=[0,1,2,null] spectrum.weights=[0,0.5,1] spectrum.seeds=3 spectrum.processes=2 spectrum.quick=true
"""

import runpy
import shlex
import sys
from argparse import Namespace
from collections.abc import Sequence
from pathlib import Path

from gt.cli.config_files import CONFIGS
from gt.cli.program import quick_exit
from gt.errors import Parser, UserError, one_line, shell_override


def command_line(argv: Sequence[str]) -> list[str]:
    """The arguments of ``train.py`` that start or resume a map.

    Raises:
        UserError: there is no map to resume, or the settings for resuming it differ.
    """
    from gt.cli.run_folders import unquoted
    from gt.cli.spectrum.plan import read, refuse_sweeps

    argv = list(map(unquoted, argv))
    folders = [word.removeprefix("resume=") for word in argv if word.startswith("resume=")]
    refuse_sweeps([word for word in argv if "=" in word and not word.startswith(("-", "resume="))])
    if not folders:
        experiments = [word.removeprefix("experiment=").strip("[]") for word in argv if word.startswith("experiment=")]
        rest = [word for word in argv if not word.startswith("experiment=")]
        return ["-m", f"experiment=[{','.join(experiments)},spectrum]" if experiments else "experiment=spectrum", *rest]
    folder = Path(folders[-1])
    plan, extra = read(folder), [word for word in argv if not word.startswith("resume=")]
    for word in extra:
        if not word.startswith("spectrum."):
            raise UserError(
                f"{word}: a map is resumed with its own settings; only spectrum.radii, weights and seeds may change"
            )
    return ["-m", *plan.flags, *plan.overrides, *extra, *shlex.split(shell_override("hydra.sweep.dir", str(folder)))]


def names_folder(word: str) -> bool:
    """Whether an argument is a folder, existing or not, rather than an override or an option."""
    return Path(word).is_dir() or not ("=" in word or word.startswith("-"))


def folders_to_show(argv: Sequence[str]) -> Namespace:
    """Parse a command line of folders."""
    parser = Parser(prog="python -m gt.spectrum", description="Show maps again.")
    parser.add_argument("folders", nargs="+", type=Path)
    parser.add_argument("--out", type=Path, default=Path("spectra.png"), help="picture of several maps")
    return parser.parse_intermixed_args(list(argv))


def show_again(argv: Sequence[str]) -> None:
    """Show existing maps."""
    from gt.cli.spectrum.plan import read
    from gt.cli.spectrum.show import show, show_several

    options = folders_to_show(argv)
    if len(options.folders) > 1:
        show_several(options.folders, options.out)
    else:
        show(read(options.folders[0]), options.folders[0])


def main(argv: Sequence[str]) -> None:
    if {"-h", "--help"} & {*argv}:
        print(__doc__)
    elif argv and all(word == "--out" or names_folder(word) for word in argv):
        show_again(argv)
    else:
        train = CONFIGS.parent / "train.py"
        sys.argv = [str(train), *command_line(argv)]
        runpy.run_path(str(train), run_name="train")["command"]()


if __name__ == "__main__":
    with quick_exit(), one_line():
        main(sys.argv[1:])
