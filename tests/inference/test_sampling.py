"""Sampling: probabilities by temperature, top-k and top-p against a loop, seeds, and prompts beyond the context."""

import numpy as np
import pytest
import torch

from gt.encodings import Rotary
from gt.inference.decode import Cache, Recompute
from gt.inference.sampling import generate, probabilities
from tests.inference.language_models import CONTEXT, VOCABULARY, WINDOW, build_model, full_logits, single_thread, tokens  # noqa: F401  a fixture


def reference_probabilities(
    logits: list[float], temperature: float, top_k: int | None, top_p: float | None
) -> list[float]:
    weights = {i: np.exp(value / temperature) for i, value in enumerate(logits)}
    ranked = sorted(weights, key=lambda i: -weights[i])
    if top_k is not None:
        ranked = ranked[:top_k]
    if top_p is not None:
        total, kept, reached = sum(weights[i] for i in ranked), [], 0.0
        for i in ranked:
            if reached >= top_p:
                break
            kept.append(i)
            reached += weights[i] / total
        ranked = kept
    total = sum(weights[i] for i in ranked)
    return [weights[i] / total if i in ranked else 0.0 for i in range(len(logits))]


@pytest.mark.parametrize("temperature", [0.3, 1.0, 2.0])
@pytest.mark.parametrize("top_k", [None, 1, 3, 7, 100])
@pytest.mark.parametrize("top_p", [None, 0.01, 0.5, 0.9, 1.0])
def test_probabilities_match_loop(temperature, top_k, top_p):
    logits = torch.randn(5, 7, generator=torch.Generator().manual_seed(1), dtype=torch.float64) * 2
    found = probabilities(logits, temperature, top_k, top_p)
    for row, each in zip(found.tolist(), logits.tolist(), strict=True):
        assert row == pytest.approx(reference_probabilities(each, temperature, top_k, top_p), abs=1e-9)


@pytest.mark.parametrize("temperature", [1e-40, 1e-300])
def test_tiny_temperatures_are_greedy(temperature):
    logits = torch.tensor([[-3.0, 2.0, 1.999], [1e30, -1e30, 0.0]])
    assert probabilities(logits, temperature).tolist() == [[0, 1, 0], [1, 0, 0]]


def test_zero_temperature_is_greedy():
    logits = torch.tensor([[1.0, 5.0, 2.0], [0.0, -1.0, -2.0]])
    assert probabilities(logits, 0.0).tolist() == [[0, 1, 0], [1, 0, 0]]


@pytest.mark.parametrize("options", [{"temperature": -1}, {"top_k": 0}, {"top_p": 0.0}, {"top_p": 1.5}])
def test_sampling_options_out_of_range_are_rejected(options):
    with pytest.raises(ValueError, match="must be"):
        probabilities(torch.zeros(1, 3), **options)


@pytest.mark.parametrize(
    "options", [{}, {"encodings": (Rotary(),)}, {"mask": WINDOW}], ids=["learned", "rope", "window"]
)
def test_cache_changes_no_text_beyond_the_context(options):
    net = build_model(**options)
    prompt = tokens(1, 3).repeat(4, 1)
    texts = [generate(r, prompt, 40, CONTEXT, seed=5) for r in (Cache(net, CONTEXT), Recompute(net))]
    assert torch.equal(*texts)
    assert texts[0].shape == (4, 43)
    assert torch.equal(texts[0][:, :3], prompt)
    assert len({tuple(row) for row in texts[0].tolist()}) == 4


def test_texts_depend_on_the_seed_unless_greedy():
    net, prompt = build_model(), tokens(2, 1)
    one, again, other = (generate(Cache(net, CONTEXT), prompt, 30, CONTEXT, seed=s) for s in (1, 1, 2))
    assert torch.equal(one, again)
    assert not torch.equal(one, other)
    greedy = [generate(Cache(net, CONTEXT), prompt, 30, CONTEXT, temperature=0.0, seed=s) for s in (1, 2)]
    assert torch.equal(*greedy)


def test_sampled_frequencies_match_the_model():
    """The first sampled token of many texts has the frequencies that the model predicts."""
    net, prompt = build_model(), tokens(1, 4).repeat(20_000, 1)
    drawn = generate(Cache(net, CONTEXT), prompt, 1, CONTEXT, seed=0)[:, -1]
    expected = full_logits(net, prompt[:1])[0, -1].softmax(-1)
    found = torch.bincount(drawn, minlength=VOCABULARY).double() / len(drawn)
    assert torch.allclose(found, expected, atol=0.02)


@pytest.mark.parametrize("length", [CONTEXT - 1, CONTEXT, CONTEXT + 1, 5 * CONTEXT])
def test_long_prompt_is_truncated_to_its_end(length):
    net = build_model()
    generated = generate(Cache(net, CONTEXT), tokens(2, length), 1, CONTEXT, temperature=0.0)
    read = tokens(2, length)[:, 0 if length <= CONTEXT else -(CONTEXT + 1) // 2 + (CONTEXT + 1) % 2 :]
    assert torch.equal(generated[:, -1], full_logits(net, read)[:, -1].argmax(-1))
