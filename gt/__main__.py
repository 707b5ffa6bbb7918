"""``gt PROGRAM ...``: every program of this package by one word, such as ``gt train data=text``.

``gt train`` is ``python train.py``, any other ``gt NAME`` is ``python -m gt.NAME``. ``gt --completion bash`` (or zsh)
prints what a shell needs to complete programs, options and their names.
"""

import ast
import os
import runpy
import sys
from collections.abc import Sequence
from pathlib import Path

from gt.cli.config_files import CONFIGS, groups
from gt.cli.program import quick_exit
from gt.errors import UserError, nearest, one_line

PACKAGE = Path(__file__).parent
TRAIN = CONFIGS.parent / "train.py"
GUARD = 'if __name__ == "__main__":'
SHELLS = {
    "bash": """_gt() {
    local IFS=$'\\n'
    COMPREPLY=($(gt --complete "${COMP_WORDS[@]:1:COMP_CWORD}" 2>/dev/null))
    [[ ${COMPREPLY-} == *= ]] && compopt -o nospace
}
COMP_WORDBREAKS=${COMP_WORDBREAKS//=}
complete -o default -F _gt gt""",
    "zsh": """#compdef gt
_gt() {
    local -a words_to_come
    words_to_come=(${(f)"$(gt --complete "${words[@]:1:$((CURRENT-1))}" 2>/dev/null)"})
    if (( ${#words_to_come} )); then compadd -Q -S '' -- $words_to_come; else _files; fi
}
(( $+functions[compdef] )) || { autoload -Uz compinit && compinit }
compdef _gt gt""",
}


def programs() -> dict[str, Path]:
    """Every program by its name: the files that run as one."""
    files = sorted({*PACKAGE.glob("*.py"), *PACKAGE.glob("*/__main__.py")} - {Path(__file__)})
    modules = {path.parent.name if path.stem == "__main__" else path.stem: path for path in files}
    return {"train": TRAIN} | {name: path for name, path in modules.items() if GUARD in path.read_text()}


def about(path: Path) -> str:
    """What a program says of itself, in a line."""
    said = (ast.get_docstring(ast.parse(path.read_text())) or "").splitlines() or [""]
    first, _, second = said[0].partition(": ")
    return (second if first.startswith("``") else first).rstrip(".")


def completions(words: Sequence[str]) -> list[str]:
    """What the last of the words after ``gt`` may become: a program, an option of a group, a group."""
    *before, last = words or [""]
    if not before:
        return [name for name in programs() if name.startswith(last)]
    known = groups(CONFIGS)
    group, is_value, value = last.partition("=")
    if not is_value:
        return [f"{name}=" for name in known if name.startswith(last)]
    listed = value.rpartition(",")[0] + "," if "," in value else "[" if value.startswith("[") else ""
    rest = value.removeprefix(listed)
    return [f"{group}={listed}{option}" for option in known.get(group, ()) if option.startswith(rest)]


def main(words: Sequence[str]) -> None:
    """Run what the words ask for."""
    if not words or words[0] in ("-h", "--help"):
        width = max(map(len, programs()))
        print(f"{__doc__}\nPrograms:\n")
        print("\n".join(f"  {name:{width}}  {about(path)}" for name, path in programs().items()))
        return
    name, *rest = words
    if name == "--complete":
        print("\n".join(completions(rest)))
        return
    if name == "--completion":
        if len(rest) != 1 or rest[0] not in SHELLS:
            raise UserError(f"--completion takes {' or '.join(SHELLS)}")
        print(SHELLS[rest[0]])
        return
    if name not in programs():
        raise UserError(f"no program '{name}': {nearest(name, programs())}")
    sys.argv = [f"gt {name}", *rest]
    if name == "train":
        sys.argv[0] = os.fspath(TRAIN)  # by which Hydra and the processes that it starts know the program
        sys.path.insert(0, os.getcwd())
        runpy.run_path(sys.argv[0], run_name="__main__")
    else:
        runpy.run_module(f"gt.{name}", run_name="__main__", alter_sys=True)


def command() -> None:
    """What the ``gt`` command runs."""
    with quick_exit(), one_line():
        main(sys.argv[1:])


if __name__ == "__main__":
    command()
