"""``gt PROGRAM ...``: the programs of this package as one command, such as ``gt train data=text``.

``gt train`` runs ``python train.py``, any other ``gt NAME`` runs ``python -m gt.NAME``. ``gt --completion bash`` (or
zsh) prints the shell completion of programs, groups and their options.
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
MAIN_GUARD = 'if __name__ == "__main__":'
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
    """All programs by name: the files with a main guard."""
    files = sorted({*PACKAGE.glob("*.py"), *PACKAGE.glob("*/__main__.py")} - {Path(__file__)})
    modules = {path.parent.name if path.stem == "__main__" else path.stem: path for path in files}
    return {"train": TRAIN} | {name: path for name, path in modules.items() if MAIN_GUARD in path.read_text()}


def summary(path: Path) -> str:
    """The one-line description in a program's docstring."""
    lines = (ast.get_docstring(ast.parse(path.read_text())) or "").splitlines() or [""]
    first, _, second = lines[0].partition(": ")
    text = (second if first.startswith("``") else first).rstrip(".")
    return text[:1].upper() + text[1:]


def completions(arguments: Sequence[str]) -> list[str]:
    """Completions of the last word after ``gt``: programs, config groups, or options of a group."""
    *previous, last = arguments or [""]
    if not previous:
        return [name for name in programs() if name.startswith(last)]
    options = groups(CONFIGS)
    group, is_value, value = last.partition("=")
    if not is_value:
        return [f"{name}=" for name in options if name.startswith(last)]
    prefix = value.rpartition(",")[0] + "," if "," in value else "[" if value.startswith("[") else ""
    partial = value.removeprefix(prefix)
    return [f"{group}={prefix}{option}" for option in options.get(group, ()) if option.startswith(partial)]


def main(arguments: Sequence[str]) -> None:
    """Run the program named by the first argument."""
    if not arguments or arguments[0] in ("-h", "--help"):
        width = max(map(len, programs()))
        print(f"{__doc__}\nPrograms:\n")
        print("\n".join(f"  {name:{width}}  {summary(path)}" for name, path in programs().items()))
        return
    name, *rest = arguments
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
        sys.argv[0] = os.fspath(TRAIN)  # Hydra and its subprocesses identify the program by it
        sys.path.insert(0, os.getcwd())
        runpy.run_path(sys.argv[0], run_name="__main__")
    else:
        runpy.run_module(f"gt.{name}", run_name="__main__", alter_sys=True)


def command() -> None:
    """Entry point of the ``gt`` command."""
    with quick_exit(), one_line():
        main(sys.argv[1:])


if __name__ == "__main__":
    command()
