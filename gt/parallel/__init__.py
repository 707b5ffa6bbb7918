"""One batch on several processes, each of which owns a run of its nodes."""

from gt.parallel.halo import Halo
from gt.parallel.ring import Ring

__all__ = ["Halo", "Ring"]
