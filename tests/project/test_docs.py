"""README.md and docs/: commands parse, Python examples run, named options exist, and pages can be followed."""

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
from tests.cli.sweeps import restore_logging  # noqa: F401  a fixture
from tests.pages import BLOCK, PAGES, ROOT, blocks, commands, filled_in, split_command, write_files

OPTIONS = groups(CONFIGS)
# what is not run here: downloads, GPUs, several processes, and programs whose own tests cover whole runs
NOT_RUN = re.compile(
    r"ogb|pcqm|molhiv|cora|data=(tu|zinc|lrgb|pyg|hf|planetoid|wiki|gnn|malnet)|trainer=|--help|--cfg|spectrum|"
    r"train\.py -m|seeds=|sweep=|SWEEP_FOLDER|gt\.lottery|gt\.puzzles|gt\.demo|gt\.bench|gt\.dashboard|gt\.serve|"
    r"--calibrate|--level|minesweeper|tensorboard|mlflow"
)
SMALL = ("debug=smoke", "trainer=cpu", "logger=csv", "model.depth=1")
SHORT = ["trainer.val_check_interval=1"]  # for a best checkpoint, as these validate every 500 steps
SMALLER = {"python_functions": [f"data.path={ROOT / 'gt'}"], "text": SHORT, "python_text": SHORT}

README, *OTHER_PAGES = (dict.fromkeys(commands(page)) for page in PAGES)
REST = [command for command in dict.fromkeys(each for page in OTHER_PAGES for each in page) if command not in README]
SLOW = {command for number, command in enumerate(REST) if number % 5}  # each takes a quarter of a second


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("docs")
    write_files(folder)
    return folder


def module(name: str):
    package = importlib.util.find_spec(name).submodule_search_locations
    return importlib.import_module(f"{name}.__main__" if package else name)


@pytest.fixture
def working_folder(folder, monkeypatch) -> Path:
    """The same folder as working directory, from which a user's own modules are imported."""
    monkeypatch.chdir(folder)
    monkeypatch.setattr(sys, "path", [*sys.path, str(folder)])
    GlobalHydra.instance().clear()
    yield folder
    sys.modules.pop("ring", None)


@pytest.mark.parametrize(
    "command",
    [pytest.param(command, marks=[pytest.mark.slow] * (command in SLOW)) for command in (*README, *REST)],
)
def test_command_parses(command, working_folder, monkeypatch):
    program, arguments = split_command(filled_in(command))
    if program == "gt.spectrum":
        if not any("=" in word for word in arguments):
            assert all(path.is_dir() for path in folders_to_show(arguments).folders)
            return
        program, arguments = "train", command_line(arguments)
    if program == "train":
        monkeypatch.setattr("gt.cli.command.check_devices", lambda *_: None)  # a reader may have more devices
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
def test_python_examples_run(page, working_folder):
    for text in blocks(page, "python"):
        code = compile(text, str(page), "exec")
        if not re.search(r"\.\.\.|from_pretrained", text):  # else it needs something of the reader's, or a download
            exec(code, {"__name__": "__main__"})


def named_options(text: str) -> set[tuple[str, str]]:
    """Options in a text: ``group=option``, ``group=[option,option]``, and those listed in code after them."""
    pairs = set()
    for group, first, rest in re.findall(r"(?<![\w./])([a-z/]+)=(\[[\w,]+\]|[\w,]+)(`(?:, `\w+`)+)?", text):
        if group in OPTIONS:
            pairs |= {(group, option) for option in re.findall(r"\b[a-z]\w*", f"{first} {rest}")}
    return {(group, option) for group, option in pairs if option != "null"}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_named_options_exist(page):
    text = BLOCK.sub(lambda block: "" if block[1] == "python" else block[0], page.read_text())
    own = {("mask", "ring")}
    assert {(group, option) for group, option in named_options(text) - own if option not in OPTIONS[group]} == set()


def test_reference_lists_every_option():
    pages = {name: (ROOT / f"docs/reference/{name}.md").read_text() for name in ("settings", "data")}
    rows = dict(re.findall(r"^\| `([\w/]+)` \| (.*) \|$", pages["settings"], re.MULTILINE)) | {"data": pages["data"]}
    for group in OPTIONS.keys() - {"data/batching"}:
        assert not {option for option in OPTIONS[group] if not re.search(rf"\b{option}\b", rows[group])}, group


def matching_run(runs: dict[str, str], words: list[str]) -> tuple[str, str]:
    """The data and folder of the run that a command of a page refers to: the last one that suits it."""
    kinds = set(runs) - {"csv_links"}  # which predicts pairs only
    if "gt.generate" in words:
        kinds = {"text", "python_text"}
    elif "--pairs" in words:
        kinds = {"csv_links"}
    elif "gt.export" in words or any(word.startswith("init=") for word in words):
        kinds = {"molecules"}
    elif {"data.path=new.csv", "--dropout"} & set(words):
        kinds = {"molecules", "text_classification"}
    return [(data, folder) for data, folder in runs.items() if data in kinds][-1]


def call(words: list[str], monkeypatch) -> None:
    program, arguments = split_command(words)
    GlobalHydra.instance().clear()
    monkeypatch.setattr(sys, "argv", [program, *arguments])
    if program == "train":
        train.command()
    else:
        main = module(program).main
        main(*([arguments] if signature(main).parameters else []))


@pytest.mark.slow
@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_page_can_be_followed(page, working_folder, monkeypatch, tmp_path):
    """All commands in order in one folder, each run as small as possible."""
    runs: dict[str, str] = {}
    threads = torch.get_num_threads()
    selected = [command for command in commands(page) if not NOT_RUN.search(command)]
    for number, command in enumerate(["data=molecules data.path=my.csv", "data=text data.path=book.txt", *selected]):
        command = command if command.startswith("python") else f"python train.py {command}"
        data, run = matching_run(runs, command.split()) if len(runs) > 1 else ("", "")
        words = filled_in(command, data, run)
        keys = [word.partition("=")[0] for word in words]
        if words[1] == "train.py" and (
            "resume" not in keys or "resume=auto" in words
        ):  # auto: there is no run to resume
            data = next((word.removeprefix("data=") for word in words if word.startswith("data=")), "python_functions")
            data = "text" if "experiment=shakespeare_char" in words else data
            small = [*SMALL, *SMALLER.get(data, ())]
            words += [word for word in small if not any(key.startswith(word.partition("=")[0]) for key in keys)]
            run_folder = str(tmp_path / str(number))
            words.append(f"hydra.run.dir={run_folder}")
            if "stage" not in keys:
                runs.pop(data, None)
                runs[data] = run_folder
        call(words, monkeypatch)
    torch.set_num_threads(threads)
