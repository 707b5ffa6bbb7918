"""Metrics of language models, against plain sums and across tokenizers."""

import math

import numpy as np
import pytest
import torch

from gt.data.text.metrics import LanguageModel
from tests.data.text.corpora import open_data


def test_perplexity_and_bits_per_byte_match_plain_sums():
    torch.manual_seed(0)
    lengths = np.array([1, 2, 3, 4])
    logits, target = torch.randn(30, 4), torch.randint(4, (30,))
    metric = LanguageModel(lengths)
    for rows in (slice(0, 7), slice(7, 30)):
        metric.update(logits[rows], target[rows])
    nats = [
        -math.log(math.exp(row[t]) / sum(map(math.exp, row))) for row, t in zip(logits.tolist(), target, strict=True)
    ]
    values = metric.compute()
    assert float(values["perplexity"]) == pytest.approx(math.exp(sum(nats) / 30), rel=1e-5)
    assert float(values["bits_per_byte"]) == pytest.approx(sum(nats) / math.log(2) / lengths[target].sum(), rel=1e-5)
    metric.reset()
    metric.update(torch.zeros(5, 4), torch.zeros(5, dtype=torch.long))
    assert float(metric.compute()["bits_per_byte"]) == pytest.approx(2.0)


def test_bits_per_byte_do_not_depend_on_the_tokenizer(tmp_path):
    """A model that only knows that each symbol is one of two needs one bit per byte of ASCII text."""
    path = tmp_path / "a.txt"
    path.write_text("ab" * 200)
    bits = {}
    for kind in ("characters", "bytes"):
        data = open_data(path, tokens=kind)
        measures, criterion = data.measures()
        target = data.targets("valid")
        logits = torch.full((len(target), data.schema.outputs), -100.0)
        for symbol in "ab":
            logits[:, data.opened.tokenizer.encode([symbol])[0][0]] = 0.0
        measures.update(logits, target)
        bits[kind] = float(measures.compute()["bits_per_byte"])
        assert criterion.name == "loss"
    assert bits == {"characters": pytest.approx(1.0), "bytes": pytest.approx(1.0)}
