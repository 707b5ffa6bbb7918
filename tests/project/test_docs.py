"""README.md and docs/: commands are held against the programs, Python runs, and options that are named exist."""

import importlib.util
import re
import sys
from inspect import signature
from pathlib import Path

import pytest
import torch
from hydra.core.global_hydra import GlobalHydra

import train
from gt.cli.command import prepare_arguments
from gt.cli.config_files import CONFIGS, groups
from gt.spectrum import command_line, folders_to_show
from tests.cli.test_sweep import own_logging  # noqa: F401  a fixture
from tests.pages import BLOCK, PAGES, ROOT, blocks, commands, files, parts, words_of

OPTIONS = groups(CONFIGS)
# what no page's test runs: downloads, GPUs and several processes, and what has tests of whole runs of its own
ELSEWHERE = re.compile(
    r"ogb|pcqm|molhiv|cora|data=(tu|zinc|lrgb|pyg|hf|planetoid|wiki|gnn|malnet)|trainer=|--help|--cfg|spectrum|"
    r"train\.py -m|seeds=|sweep=|SWEEP_FOLDER|gt\.lottery|gt\.puzzles|gt\.demo|gt\.bench|gt\.dashboard|gt\.serve|"
    r"--calibrate|--level|minesweeper|tensorboard|mlflow"
)
SMALL = ("debug=smoke", "trainer=cpu", "logger=csv", "model.depth=1")
SHORT = ["trainer.val_check_interval=1"]  # a best checkpoint, of those that validate every 500 steps
SMALLER = {"python_functions": [f"data.path={ROOT / 'gt'}"], "text": SHORT, "python_text": SHORT}

README, *OTHERS = (dict.fromkeys(commands(page)) for page in PAGES)
REST = [command for command in dict.fromkeys(each for page in OTHERS for each in page) if command not in README]
LATER = {command for number, command in enumerate(REST) if number % 5}  # each takes a quarter of a second


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("docs")
    files(folder)
    return folder


def module(name: str):
    package = importlib.util.find_spec(name).submodule_search_locations
    return importlib.import_module(f"{name}.__main__" if package else name)


@pytest.fixture
def here(folder, monkeypatch) -> Path:
    """In that folder, from which parts of one's own are imported."""
    monkeypatch.chdir(folder)
    monkeypatch.setattr(sys, "path", [*sys.path, str(folder)])
    GlobalHydra.instance().clear()
    yield folder
    sys.modules.pop("ring", None)


@pytest.mark.parametrize(
    "command",
    [pytest.param(command, marks=[pytest.mark.slow] * (command in LATER)) for command in (*README, *REST)],
)
def test_a_command_is_understood(command, here, monkeypatch):
    program, arguments = parts(words_of(command))
    if program == "gt.spectrum":
        if not any("=" in word for word in arguments):
            assert all(path.is_dir() for path in folders_to_show(arguments).folders)
            return
        program, arguments = "train", command_line(arguments)
    if program == "train":
        monkeypatch.setattr("gt.cli.command.check_devices", lambda *_: None)  # the reader has a larger machine
        monkeypatch.setattr("gt.train.trainer.rehearse_trainer", lambda *_: None)
        assert prepare_arguments(arguments) is not None
        return
    monkeypatch.setattr(sys, "argv", [program, *arguments])
    parser = module(program).arguments
    options = parser(*([arguments] if signature(parser).parameters else []))
    if program == "gt.data":
        known, overrides = options
        prepare_arguments([f"data={known.name}", *overrides])


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_python_runs(page, here):
    for text in blocks(page, "python"):
        code = compile(text, str(page), "exec")
        if not re.search(r"\.\.\.|from_pretrained", text):  # which need something of the reader's, or a download
            exec(code, {"__name__": "__main__"})


def named(text: str) -> set[tuple[str, str]]:
    """The options that a text names: ``group=option``, ``group=[option,option]``, and more words in code after it."""
    pairs = set()
    for group, first, more in re.findall(r"(?<![\w./])([a-z/]+)=(\[[\w,]+\]|[\w,]+)(`(?:, `\w+`)+)?", text):
        if group in OPTIONS:
            pairs |= {(group, option) for option in re.findall(r"\b[a-z]\w*", f"{first} {more}")}
    return {(group, option) for group, option in pairs if option != "null"}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_the_options_that_are_named_exist(page):
    text = BLOCK.sub(lambda block: "" if block[1] == "python" else block[0], page.read_text())
    own = {("mask", "ring")}
    assert {(group, option) for group, option in named(text) - own if option not in OPTIONS[group]} == set()


def test_the_reference_names_every_option():
    pages = {name: (ROOT / f"docs/reference/{name}.md").read_text() for name in ("settings", "data")}
    rows = dict(re.findall(r"^\| `([\w/]+)` \| (.*) \|$", pages["settings"], re.MULTILINE)) | {"data": pages["data"]}
    for group in OPTIONS.keys() - {"data/batching"}:
        assert not {option for option in OPTIONS[group] if not re.search(rf"\b{option}\b", rows[group])}, group


def last(runs: dict[str, str], words: list[str]) -> tuple[str, str]:
    """The data and the folder of the run that a page means: the last one that serves what is asked of it."""
    kinds = set(runs) - {"csv_links"}  # which answers pairs alone
    if "gt.generate" in words:
        kinds = {"text", "python_text"}
    elif "--pairs" in words:
        kinds = {"csv_links"}
    elif "gt.export" in words or any(word.startswith("init=") for word in words):
        kinds = {"molecules"}
    elif {"data.path=new.csv", "--dropout"} & set(words):
        kinds = {"molecules", "text_classification"}
    return [(data, folder) for data, folder in runs.items() if data in kinds][-1]


def called(words: list[str], monkeypatch) -> None:
    program, arguments = parts(words)
    GlobalHydra.instance().clear()
    monkeypatch.setattr(sys, "argv", [program, *arguments])
    if program == "train":
        train.command()
    else:
        main = module(program).main
        main(*([arguments] if signature(main).parameters else []))


@pytest.mark.slow
@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_a_page_can_be_followed(page, here, monkeypatch, tmp_path):
    """One command after the other in one folder, each run as small as it can be."""
    runs: dict[str, str] = {}
    threads = torch.get_num_threads()
    wanted = [command for command in commands(page) if not ELSEWHERE.search(command)]
    for number, command in enumerate(["data=molecules data.path=my.csv", "data=text data.path=book.txt", *wanted]):
        command = command if command.startswith("python") else f"python train.py {command}"
        data, run = last(runs, command.split()) if len(runs) > 1 else ("", "")
        words = words_of(command, data, run)
        keys = [word.partition("=")[0] for word in words]
        if words[1] == "train.py" and ("resume" not in keys or "resume=auto" in words):  # auto: no run waits here
            data = next((word.removeprefix("data=") for word in words if word.startswith("data=")), "python_functions")
            data = "text" if "experiment=shakespeare_char" in words else data
            small = [*SMALL, *SMALLER.get(data, ())]
            words += [word for word in small if not any(key.startswith(word.partition("=")[0]) for key in keys)]
            place = str(tmp_path / str(number))
            words.append(f"hydra.run.dir={place}")
            if "stage" not in keys:
                runs.pop(data, None)
                runs[data] = place
        called(words, monkeypatch)
    torch.set_num_threads(threads)
