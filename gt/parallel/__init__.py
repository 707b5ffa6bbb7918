"""One batch sharded over several processes, each of which owns a contiguous range of nodes."""

from gt.parallel.halo import Halo
from gt.parallel.model import check, forward
from gt.parallel.ring import Ring
from gt.parallel.share import Share, share_of

__all__ = ["Halo", "Ring", "Share", "check", "forward", "share_of"]
