"""Lightning callbacks: progress, logging, weight averaging, and the checkpoints from which a run resumes."""

from gt.train.callbacks.attention import AttentionByHop
from gt.train.callbacks.average import StochasticWeightAverage, WeightAverage
from gt.train.callbacks.contention import Contention
from gt.train.callbacks.frozen import FrozenNorms
from gt.train.callbacks.last import SaveLast
from gt.train.callbacks.last_validation import LastValidation
from gt.train.callbacks.masks import MaskSchedule
from gt.train.callbacks.pace import Pace, Updates
from gt.train.callbacks.progress import Loading, Progress
from gt.train.callbacks.pruning import Pruning
from gt.train.callbacks.recompute import ActivationCheckpointing
from gt.train.callbacks.settle import SettleBackends
from gt.train.callbacks.statistics import NormStatistics

__all__ = [
    "ActivationCheckpointing",
    "AttentionByHop",
    "Contention",
    "FrozenNorms",
    "LastValidation",
    "Loading",
    "MaskSchedule",
    "NormStatistics",
    "Pace",
    "Progress",
    "Pruning",
    "SaveLast",
    "SettleBackends",
    "StochasticWeightAverage",
    "Updates",
    "WeightAverage",
]
