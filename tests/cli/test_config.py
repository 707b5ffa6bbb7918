"""The check of configurations: all files of configs pass it, and keys or values that a class rejects are named."""

import pytest
from omegaconf import DictConfig, OmegaConf

from gt.cli.config import Config, check, check_path
from gt.errors import UserError
from tests.cli.configurations import CHOICES, composed, options_of, section

# groups that exist only with some options of another group
NEEDS = {"data/sampler": "data=ogbn_arxiv", "sweep/sampler": "sweep=optuna"}


def complete(*choices: str) -> DictConfig:
    """The configuration for the choices, with a value for each key that the user has to set."""
    required = [NEEDS[group] for choice in choices if (group := choice.split("=")[0]) in NEEDS]
    cfg = composed(*required, *choices)
    for key in OmegaConf.missing_keys(cfg):
        OmegaConf.update(cfg, key, "somewhere")
    return cfg


def test_known_options_are_among_the_choices():
    assert {"data=text", "model=gps", "model/local=gcn", "experiment=shakespeare_char", "debug=smoke"} <= set(CHOICES)


@pytest.mark.parametrize("choice", CHOICES)
def test_every_option_passes_the_check(choice):
    check(complete(choice))


# all combinations take minutes: by default every eighth of each model and of each dataset is tested
COMBINATIONS = [
    pytest.param(data, model, marks=[] if (row + column) % 8 == 0 else pytest.mark.slow)
    for row, data in enumerate(options_of("data"))
    for column, model in enumerate(options_of("model"))
]


@pytest.mark.parametrize(("data", "model"), COMBINATIONS)
def test_every_model_composes_with_every_dataset(data, model):
    check(complete(data, model))


def test_all_encodings_compose_together():
    names = [choice.split("=")[1] for choice in options_of("encoding")]
    cfg = composed(f"encoding=[{','.join(names)}]")
    check(cfg)
    assert len(cfg.encoding) >= len(names) - 1  # one of them is none


def config(**sections) -> DictConfig:
    plain = {name: section() for name in ("data", "mask", "model", "optim", "trainer")}
    return OmegaConf.create(plain | sections)


VALID = {
    "the least": {},
    "all keys of the top": {"name": "a", "seed": 3, "resume": "folder", "encoding": {}, "callbacks": {}, "logger": {}},
    "empty sections": {"callbacks": None, "logger": None, "encoding": None},
    "parts taken out": {"callbacks": {"one": section(), "two": None}},
    "what only the run knows": {"callbacks": {"one": section(monitor=None)}},
    "sections in sections": {"model": section(inner=section(inner=section(size=2)))},
    "sections in lists": {"model": section(parts=[section(), 3, [section(size=2)]])},
    "a list of masks": {"mask": [section(), section(size=3)]},
    "a plain mapping": {"model": section(table={"a": 1})},
    "Hydra's own keys": {"model": section(_partial_=True, _convert_="all", _recursive_=False)},
    "interpolation": {"seed": 4, "model": section(size="${seed}")},
    "a fixed list": {"model": section(betas=[1, 2])},
}


@pytest.mark.parametrize("sections", VALID.values(), ids=VALID)
def test_valid_configuration_passes(sections):
    check(config(**sections))


INVALID = {
    "unknown section": ({"modle": section()}, "unknown key 'modle': did you mean 'model'?"),
    "unknown key": ({"model": section(sise=1)}, "unknown key 'model.sise': did you mean 'size'?"),
    "deep key": ({"model": section(inner=section(sise=1))}, "unknown key 'model.inner.sise': did you mean 'size'?"),
    "key in a list": ({"mask": [section(), section(sise=1)]}, "unknown key 'mask.1.sise': did you mean 'size'?"),
    "key in lists": (
        {"model": section(parts=[[section(mood="fast")]])},
        "unknown key 'model.parts.0.0.mood': did you mean 'mode'?",
    ),
    "key of a part": ({"logger": {"csv": section(sise=1)}}, "unknown key 'logger.csv.sise': did you mean 'size'?"),
    "key into what takes any": ({"data": section("Greedy", nmed=1)}, "unknown key 'data.nmed': did you mean 'named'?"),
    "wrong type": ({"model": section(size="big")}, "model.size='big' has the wrong type: it should be a whole number"),
    "null": ({"model": section(size=None)}, "model.size=None has the wrong type: it should be a whole number"),
    "wrong option": ({"model": section(mode="fats")}, "model.mode='fats': did you mean 'fast'?"),
    "wrong length": ({"model": section(betas=[1])}, "model.betas=[1] has the wrong type: it should be a list of 2"),
    "several for one": (
        {"seed": [0, 1]},
        "seed=[0, 1] has the wrong type: it should be a whole number; to run each: python train.py -m seed=0,1",
    ),
    "wrong type at the top": ({"seed": "x"}, "seed='x' has the wrong type: it should be a whole number"),
    "a name for a section": ({"data": "text"}, "data='text' has the wrong type: it should be a section"),
    "a name for sections": (
        {"encoding": "rwse"},
        "encoding='rwse' has the wrong type: it should be a section with a section for each part",
    ),
    "no target": (
        {"model": {"size": 1}},
        "'model' has no _target_: choose an option, such as model=NAME",
    ),
    "no target of a part": (
        {"logger": {"csv": section(), "cvs": {"size": 1}}},
        "'logger.cvs' has no _target_: did you mean 'csv'?",
    ),
    "a part that is a value": (
        {"logger": {"csv": section(), "cvs": 1}},
        "'logger.cvs' has no _target_: did you mean 'csv'?",
    ),
    "no such class": (
        {"model": {"_target_": "gt.model.Nope"}},
        "model._target_: there is nothing called 'gt.model.Nope' to import",
    ),
    "no such module": (
        {"model": section(inner={"_target_": "nope.Nope"})},
        "model.inner._target_: there is nothing called 'nope.Nope' to import",
    ),
    "missing value": ({"data": section(size="???")}, "data.size is not set: give data.size=VALUE"),
    "interpolation to nothing": ({"model": section(size="${nope}")}, "model.size: Interpolation key 'nope' not found"),
}


@pytest.mark.parametrize(("sections", "message"), INVALID.values(), ids=INVALID)
def test_invalid_configuration_is_reported_in_one_line(sections, message):
    with pytest.raises(UserError) as caught:
        check(config(**sections))
    assert str(caught.value) == message


def test_missing_section_is_reported():
    cfg = config()
    del cfg.optim
    with pytest.raises(UserError, match=r"^there is no 'optim': choose an option, optim=NAME$"):
        check(cfg)


def test_default_has_the_fields_of_the_dataclass():
    cfg = composed()
    check(cfg)
    # the dataset's own or none, unless a command sets them
    unset = {"loss", "metrics", "baseline", "sweep", "objective"}
    assert set(map(str, cfg)) == set(Config.__dataclass_fields__) - unset


# ---- dotted keys


@pytest.mark.parametrize(
    ("key", "is_set"),
    [
        ("seed", True),
        ("model.size", True),
        ("model.inner.size", True),
        ("model.inner.mode", False),
        ("model.mode", False),
        ("model.betas", False),
        ("data.size", True),
        ("mask.0.size", True),
        ("mask.1.mode", False),
        ("callbacks.one.size", True),
        ("callbacks.two", True),
        ("optim.broken", True),
    ],
)
def test_valid_path_is_set_or_settable(key, is_set):
    cfg = config(
        seed=1,
        model=section(size=1, inner=section(size=2)),
        mask=[section(size=1), section()],
        data=section(size="???"),
        callbacks={"one": section(size=1), "two": None},
        optim={"broken": "${nope}"},
    )
    assert check_path(cfg, key) is is_set


@pytest.mark.parametrize(
    ("key", "message"),
    [
        ("model.sise", "unknown key 'model.sise': did you mean 'size'?"),
        ("modle.size", "unknown key 'modle': did you mean 'model'?"),
        ("model.iner.size", "unknown key 'model.iner': did you mean 'inner'?"),
        ("model.inner.sise", "unknown key 'model.inner.sise': did you mean 'size'?"),
        ("mask.0.sise", "unknown key 'mask.0.sise': did you mean 'size'?"),
        ("mask.7.size", "unknown key 'mask.7': there are 0"),
        ("model.size.more", "unknown key 'model.size.more': 'model.size' is a single value"),
        ("callbacks.onne", "unknown key 'callbacks.onne': did you mean 'one'?"),
        ("optim.size", "optim._target_: there is nothing called 'nope.Nope' to import"),
    ],
)
def test_invalid_path_is_reported(key, message):
    cfg = config(
        model=section(size=1, inner=section(size=2)),
        mask=[section(size=1)],
        callbacks={"one": section()},
        optim={"_target_": "nope.Nope"},
    )
    with pytest.raises(UserError) as caught:
        check_path(cfg, key)
    assert str(caught.value) == message


def test_full_graph_training_defaults_to_more_epochs():
    few, many = (composed(f"data={data}").trainer.max_epochs for data in ("molecules", "planetoid"))
    assert many >= 100 > few
    for choices, epochs in (
        (["data=planetoid", "data/sampler=neighbours"], few),
        (["data=ogbl_ddi"], few),  # its epoch has many batches of links
        (["data=planetoid", "trainer=ddp"], many),
        (["data=tu"], 100),
        (["data=tu", "trainer=gpu"], 100),
        (["data=planetoid", "trainer.max_epochs=3"], 3),
        (["data=planetoid", "debug=smoke"], 1),
    ):
        assert composed(*choices).trainer.max_epochs == epochs, choices


def test_keys_of_named_blocks_are_checked():
    with pytest.raises(UserError, match=r"model\.block\.L\.dropuot"):
        check(composed("model=interleaved", "+model.block.L.dropuot=0.1"))
    check(composed("model=interleaved", "model.pattern=LG", "model/local@model.block.L.local=gine"))
