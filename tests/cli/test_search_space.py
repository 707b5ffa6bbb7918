"""The search space of a sweep: the distributions of swept values, and the spaces of configs/sweep."""

import pytest
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

from gt.cli.arguments import alternatives, parse_overrides
from gt.cli.command import prepare_arguments
from gt.cli.composing import compose_config
from gt.cli.trials.search import distribution, lines, split
from gt.errors import UserError
from gt.train.network import network_config, rehearse


@pytest.mark.parametrize(
    ("line", "expected", "value", "override_line"),
    [
        ("a=interval(0.5,2)", FloatDistribution(0.5, 2), 0.123456789, "a=0.123457"),
        ("a=tag(log,interval(1e-4,1e-2))", FloatDistribution(1e-4, 1e-2, log=True), 1e-3, "a=0.001"),
        ("a=tag(log,int(interval(1,64)))", IntDistribution(1, 64, log=True), 8, "a=8"),
        ("a=range(2,7)", IntDistribution(2, 6), 3, "a=3"),
        ("a=range(4,11,2)", IntDistribution(4, 10, step=2), 4, "a=4"),
        ("a=range(5,1,-1)", IntDistribution(2, 5), 3, "a=3"),
        ("a=range(9,2,-3)", IntDistribution(3, 9, step=3), 6, "a=6"),
        ("a=range(0,1,0.5)", CategoricalDistribution(["0.0", "0.5"]), "0.5", "a=0.5"),
        ("a=1,null,[x]", CategoricalDistribution(["1", "null", "[x]"]), "[x]", "a=[x]"),
        ("+a=b,c", CategoricalDistribution(["b", "c"]), "c", "+a=c"),
        ("a=glob(*)", CategoricalDistribution(["x", "y"]), "x", "a=x"),
    ],
)
def test_distribution_of_swept_values(line, expected, value, override_line):
    (override,) = parse_overrides([line])
    assert distribution(override, ["x", "y"]) == expected
    assert lines([override], {"a": value}) == [override_line]


@pytest.mark.parametrize("words", [["optim.lr=1"], ["seed=1,2"]])
def test_command_without_swept_keys_is_rejected(words):
    with pytest.raises(UserError, match=r"seeds=3|model\.depth"):
        split(words)


def test_empty_range_is_rejected():
    with pytest.raises(UserError, match=r"a=range\(2,1\)"):
        distribution(*parse_overrides(["a=range(2,1)"]), ())


def test_sweep_option_adds_its_search_space():
    arguments = prepare_arguments(["sweep=python_functions", "model.depth=3", "optim.lr=1,2", "seeds=2"])
    assert {"-m", "model.depth=3", "optim.lr=1,2", "mask.hops=1,2,4,null", "sweep.seeds=2"} <= {*arguments}
    assert sum(word.startswith("optim.lr") for word in arguments) == 1
    assert prepare_arguments(["--run", "sweep=python_functions"]) == ["--run", "sweep=python_functions"]
    with pytest.raises(UserError, match=r"sweep\.trails"):
        prepare_arguments(["sweep=optuna", "sweep.trails=3"])


@pytest.mark.parametrize(
    "name", ["python_functions", *(pytest.param(name, marks=pytest.mark.slow) for name in ("molhiv", "text"))]
)
def test_bounds_of_every_dimension_can_be_built(name):
    data = [f"data.source.path={__file__}"] if name == "text" else []
    _, *words = prepare_arguments([f"sweep={name}", *data])
    overrides = parse_overrides(words)
    lines = [alternatives(override) for override in overrides]
    first = [each[0] for each in lines]
    settings = [[*first[:n], line, *first[n + 1 :]] for n, each in enumerate(lines) for line in each]
    assert len(settings) > 8
    for words in settings:
        rehearse(network_config(compose_config(words)))
