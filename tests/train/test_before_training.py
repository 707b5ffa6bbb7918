"""What happens to a network between its construction and its training."""

import pytest

from gt.train import run
from tests.small_runs import train, write_graphs


class Stop(Exception):
    """Raised where the test has seen enough."""


def test_parameters_without_gradients_are_looked_for_before_the_network_is_compiled_for_its_device(
    tmp_path, monkeypatch
):
    """The search runs on the CPU, while compilation may move the network to a GPU."""

    def stop(*arguments):
        raise Stop

    searched = []
    monkeypatch.setattr(run, "has_unused_parameters", lambda net, batch: searched.append(net) or False)
    monkeypatch.setattr(run, "compile_network", stop)
    with pytest.raises(Stop):
        train(tmp_path, *write_graphs(tmp_path), "trainer.strategy=ddp", "trainer.compile=true")
    assert searched
