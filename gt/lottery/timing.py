"""How a step is timed, and the step that is timed most."""

import statistics
import time
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from gt.attention import attend
from gt.masks import Pairs

Step = Callable[[], Any]
SETTLING = 15, 5, 0.4  # rounds, the fewer of them, seconds of a step: by which a run settles a close call


def wait(device: str) -> None:
    """Until the device has done what it was given."""
    if device == "cuda":
        torch.cuda.synchronize()


def once(step: Step, device: str) -> float:
    """Seconds of one run of a step."""
    wait(device)
    begun = time.perf_counter()
    step()
    wait(device)
    return time.perf_counter() - begun


def timed(step: Step, device: str, least: int, seconds: float) -> list[float]:
    """Seconds of each repeat: at least so many, and until they have taken so long; a first one is thrown away."""
    step()
    repeats: list[float] = []
    while len(repeats) < least or sum(repeats) < seconds:
        repeats.append(once(step, device))
    return repeats


def side_by_side(
    steps: dict[str, Step], device: str, rounds: int, least: int, seconds: float
) -> dict[str, list[float]]:
    """Repeats of every step in turn, so that whatever disturbs the machine disturbs all of them alike.

    Each time, a step runs once before it is timed: a training loop does not find the caches and the freed memory of
    another program either.

    Args:
        steps: by name.
        device: where they run.
        rounds, least: repeats of each step; ``least`` of them where that takes longer than ``seconds`` a step.
    """
    times: dict[str, list[float]] = {name: [] for name in steps}
    start = time.perf_counter()
    for number in range(rounds):
        if number >= least and time.perf_counter() - start > seconds * len(steps):
            break
        for name, step in steps.items():
            step()
            times[name].append(once(step, device))
    return times


def attention_step(pairs: Pairs, given: list[Tensor], backend: str) -> Step:
    """One pass of `attend` forward and backward; ``given`` are q, k, v and the gradient of what comes out."""
    q, k, v, grad = given
    return lambda: torch.autograd.grad(attend(q, k, v, pairs, backend=backend), (q, k, v), grad)


def ms(times: list[float]) -> str:
    """The median in milliseconds, and half the spread between the quartiles."""
    ranked = sorted(times)
    spread = ranked[(3 * len(ranked)) // 4] - ranked[len(ranked) // 4]
    return f"{statistics.median(times) * 1e3:.2f} ±{spread * 500:.2f}"
