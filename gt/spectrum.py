"""``python -m gt.spectrum``: where a dataset lies on the map between GNN and Transformer.

    python -m gt.spectrum data=NAME [KEY=VALUE ...]   run the map, as python train.py -m experiment=spectrum does
    python -m gt.spectrum experiment=NAME             the same with the settings of an experiment
    python -m gt.spectrum FOLDER                      show a map again, as far as it is finished
    python -m gt.spectrum FOLDER FOLDER ... [--out PICTURE.png]   several maps in one picture, else spectra.png
    python -m gt.spectrum resume=FOLDER               go on with one, perhaps with more of spectrum.seeds=5 and the like

Every mask radius with every blend weight, from message passing alone to attention among all nodes, with several seeds:
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


def command_line(words: Sequence[str]) -> list[str]:
    """The arguments of ``train.py`` for a map that begins or goes on.

    Raises:
        UserError: there is no map to go on with, or it is asked to go on under other settings.
    """
    from gt.cli.run_folders import unquoted
    from gt.cli.spectrum.plan import read, refuse_several

    words = list(map(unquoted, words))
    folders = [word.removeprefix("resume=") for word in words if word.startswith("resume=")]
    refuse_several([word for word in words if "=" in word and not word.startswith(("-", "resume="))])
    if not folders:
        recipes = [word.removeprefix("experiment=").strip("[]") for word in words if word.startswith("experiment=")]
        others = [word for word in words if not word.startswith("experiment=")]
        return ["-m", f"experiment=[{','.join(recipes)},spectrum]" if recipes else "experiment=spectrum", *others]
    folder = Path(folders[-1])
    plan, more = read(folder), [word for word in words if not word.startswith("resume=")]
    for word in more:
        if not word.startswith("spectrum."):
            raise UserError(f"{word}: a map goes on under its own settings, but for spectrum.radii, weights and seeds")
    return ["-m", *plan.flags, *plan.overrides, *more, *shlex.split(shell_override("hydra.sweep.dir", str(folder)))]


def names_folder(word: str) -> bool:
    """Whether a word is a folder, there or not, rather than a setting or an option."""
    return Path(word).is_dir() or not ("=" in word or word.startswith("-"))


def folders_to_show(words: Sequence[str]) -> Namespace:
    """What a command line of folders asks for."""
    parser = Parser(prog="python -m gt.spectrum", description="Show maps again.")
    parser.add_argument("folders", nargs="+", type=Path)
    parser.add_argument("--out", type=Path, default=Path("spectra.png"), help="the picture of several maps")
    return parser.parse_intermixed_args(list(words))


def show_again(words: Sequence[str]) -> None:
    """Show maps that have been run."""
    from gt.cli.spectrum.plan import read
    from gt.cli.spectrum.show import show, show_several

    options = folders_to_show(words)
    if len(options.folders) > 1:
        show_several(options.folders, options.out)
    else:
        show(read(options.folders[0]), options.folders[0])


def main(words: Sequence[str]) -> None:
    if {"-h", "--help"} & {*words}:
        print(__doc__)
    elif words and all(word == "--out" or names_folder(word) for word in words):
        show_again(words)
    else:
        train = CONFIGS.parent / "train.py"
        sys.argv = [str(train), *command_line(words)]
        runpy.run_path(str(train), run_name="train")["command"]()


if __name__ == "__main__":
    with quick_exit(), one_line():
        main(sys.argv[1:])
