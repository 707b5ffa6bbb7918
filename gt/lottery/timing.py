"""Timing of steps, and the step of an attention backend."""

import statistics
import time
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from gt.attention import attend
from gt.masks import Pairs

Step = Callable[[], Any]
SETTLING = 15, 5, 0.4  # rounds, minimum rounds and seconds per step with which runs settle close calls


def wait(device: str) -> None:
    """Synchronise with the device."""
    if device == "cuda":
        torch.cuda.synchronize()


def once(step: Step, device: str) -> float:
    """Time one run of a step, in seconds."""
    wait(device)
    started = time.perf_counter()
    step()
    wait(device)
    return time.perf_counter() - started


def timed(step: Step, device: str, minimum: int, seconds: float) -> list[float]:
    """Repeat a step at least ``minimum`` times and for at least ``seconds``, after one warm-up; returns all times."""
    step()
    repeats: list[float] = []
    while len(repeats) < minimum or sum(repeats) < seconds:
        repeats.append(once(step, device))
    return repeats


def side_by_side(
    steps: dict[str, Step], device: str, rounds: int, minimum: int, seconds: float
) -> dict[str, list[float]]:
    """Time the steps in turn, so that other load on the machine affects all of them alike.

    Before each timing a step runs once untimed, so that it finds its own data in caches and freed memory, as in a
    training loop.

    Args:
        steps: the steps by name.
        device: where they run.
        rounds, minimum: repeats of each step; only ``minimum`` if they take longer than ``seconds`` per step.
    """
    times: dict[str, list[float]] = {name: [] for name in steps}
    start = time.perf_counter()
    for number in range(rounds):
        if number >= minimum and time.perf_counter() - start > seconds * len(steps):
            break
        for name, step in steps.items():
            step()
            times[name].append(once(step, device))
    return times


def attention_step(pairs: Pairs, tensors: list[Tensor], backend: str) -> Step:
    """A forward and backward pass of `attend`; ``tensors`` are q, k, v and the gradient of the output."""
    q, k, v, grad = tensors
    return lambda: torch.autograd.grad(attend(q, k, v, pairs, backend=backend), (q, k, v), grad)


def ms(times: list[float]) -> str:
    """Format the median and half the interquartile range, in milliseconds."""
    ranked = sorted(times)
    spread = ranked[(3 * len(ranked)) // 4] - ranked[len(ranked) // 4]
    return f"{statistics.median(times) * 1e3:.2f} ±{spread * 500:.2f}"
