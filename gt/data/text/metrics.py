"""Metrics of language models."""

import math
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F
from torchmetrics import Metric


class LanguageModel(Metric):
    """Perplexity, and bits per byte of the predicted text, which unlike perplexity compares across vocabularies.

    Args:
        lengths: (outputs,) the length of each token in bytes; None leaves out bits per byte.
    """

    full_state_update = False
    lengths: Tensor | None
    nats: Tensor
    count: Tensor
    bytes: Tensor

    def __init__(self, lengths: np.ndarray | None = None) -> None:
        super().__init__()
        self.register_buffer("lengths", None if lengths is None else torch.from_numpy(lengths), persistent=False)
        for name, zero in (("nats", 0.0), ("count", 0), ("bytes", 0)):
            self.add_state(name, torch.tensor(zero), dist_reduce_fx="sum")

    def update(self, prediction: Tensor, target: Tensor) -> None:
        """Add (rows, outputs) logits and (rows,) target tokens."""
        self.nats += F.cross_entropy(prediction.float(), target, reduction="sum")
        self.count += target.numel()
        if self.lengths is not None:
            self.bytes += self.lengths[target].sum()

    def compute(self) -> dict[str, Any]:
        """``perplexity`` and, if lengths are known, ``bits_per_byte``."""
        scores = {"perplexity": (self.nats / self.count).exp()}
        if self.lengths is not None:
            scores["bits_per_byte"] = self.nats / self.bytes / math.log(2)
        return scores
