"""Parsing command lines: flags in any position, short forms of keys, and the values of a sweep."""

import pytest
from omegaconf import OmegaConf

from gt.cli.arguments import alternatives, expand_keys, parse_overrides, split_flags
from gt.cli.command import prepare_arguments
from gt.data.source import Source
from gt.errors import UserError
from tests.command_lines import message_of


@pytest.mark.parametrize(
    ("argument", "lines"),
    [
        ("seed=3", ["seed=3"]),
        ("~logger", ["~logger"]),
        ("seed=1,2", ["seed=1", "seed=2"]),
        ("+seed=1,2", ["+seed=1", "+seed=2"]),
        ("++seed=1,null", ["++seed=1", "++seed=null"]),
        ("a@b=x,y", ["a@b=x", "a@b=y"]),
        ("seed=range(1,4)", ["seed=1", "seed=2", "seed=3"]),
        ("name=choice('a b',c)", ["name=a\\ b", "name=c"]),
        ("x=[1,2],[3]", ["x=[1,2]", "x=[3]"]),
        ("x=interval(1,2)", ["x=1.0", "x=2.0"]),
        ("x=glob([a*,b],exclude=ab)", ["x=aa", "x=b"]),
    ],
)
def test_sweep_expands_to_one_override_per_value(argument, lines):
    (override,) = parse_overrides([argument])
    assert alternatives(override, ["aa", "ab", "b", "c"]) == lines
    for line in lines:
        assert not parse_overrides([line])[0].is_sweep_override()


def test_hydra_flags_are_not_overrides():
    overrides = parse_overrides(["-m", "seed=1", "--cfg", "job", "-p", "model", "--resolve", "name=a"])
    assert [override.input_line for override in overrides] == ["seed=1", "name=a"]


@pytest.mark.parametrize(
    ("arguments", "flags", "overrides"),
    [
        ("seed=1,2 -m optim.lr=1", "-m", "seed=1,2 optim.lr=1"),
        ("seed=1 --multirun", "--multirun", "seed=1"),
        ("--optim.lr=0.1 --seed=3 mask.hops=1", "", "optim.lr=0.1 seed=3 mask.hops=1"),
        ("--data=text --data.path=--odd=name", "", "data=text data.path=--odd=name"),
        ("a=1 --cfg job b=2 -p model --resolve", "--cfg job -p model --resolve", "a=1 b=2"),
        ("--cfg=job a=1", "--cfg job", "a=1"),
        ("a=1 --config-dir=mine -cn other", "--config-dir mine -cn other", "a=1"),
        ("a=1 --info defaults b=2", "--info defaults", "a=1 b=2"),
        ("-i a=1", "-i", "a=1"),
        ("~logger +a=1", "", "~logger +a=1"),
    ],
)
def test_flags_in_any_position_and_keys_with_dashes(arguments, flags, overrides):
    # W&B agents put dashes before keys
    assert split_flags(arguments.split()) == (flags.split(), overrides.split())


@pytest.mark.parametrize(
    ("arguments", "suggestion"),
    [
        ("--mutlirun seed=1", "--multirun"),
        ("-x", "-x"),
        ("seed=1 --cfg", "--cfg"),
        ("--experimental-rerun=a.pkl", "--exp"),
        ("--experimental-rerun a.pkl", "--exp"),
        ("-", "-"),
    ],
)
def test_unknown_flag_is_reported_in_one_line(arguments, suggestion):
    with pytest.raises(UserError) as caught:
        prepare_arguments(arguments.split())
    assert suggestion in message_of(caught)


class Bare(Source):
    """A source without options."""

    def key(self):
        return {}

    def build(self):
        return []


@pytest.mark.parametrize(
    ("words", "expanded"),
    [
        (["data=text", "data.path=a", "+data.root=b"], ["data=text", "data.source.path=a", "+data.source.root=b"]),
        (["data.batch_size=3", "~data.source", "seed=1"], ["data.batch_size=3", "~data.source", "seed=1"]),
        (["data.dataset.name=Cora", "data.roots=1"], ["data.source.dataset.name=Cora", "data.roots=1"]),
        (["data.dataset.name=Cora", f"data.source._target_={__name__}.Bare", "data.seed=2"],
         ["data.source.dataset.name=Cora", f"data.source._target_={__name__}.Bare", "data.seed=2"]),
    ],
)  # fmt: skip
def test_keys_of_the_source_may_be_shortened(words, expanded):
    base = OmegaConf.create({"data": {"_target_": "gt.data.graphs.GraphData", "batch_size": 1, "source": {
        "_target_": "gt.data.own.pyg.PyG", "dataset": {"name": "?"}}}})  # fmt: skip
    base.data.source.path = "?"
    assert expand_keys(words, base) == expanded
    bare = OmegaConf.create(
        {"data": {"_target_": "gt.data.graphs.GraphData", "source": {"_target_": f"{__name__}.Bare"}}}
    )
    assert expand_keys(["data.batch_size=3", "data.path=a"], bare) == ["data.batch_size=3", "data.path=a"]


def test_null_group_becomes_an_empty_list():
    words = ["loss=null", "experiment=a,null", "loss=null,l1", "loss.x=null", "seed=null", "experiment=nullable"]
    assert split_flags(words)[1] == [
        "loss=[]",
        "experiment=a,[]",
        "loss=[],l1",
        "loss.x=null",
        "seed=null",
        "experiment=nullable",
    ]
