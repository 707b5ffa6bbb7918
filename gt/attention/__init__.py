from gt.attention.costs import Demand
from gt.attention.dispatch import BACKENDS, Reading, attend, choose, explain, know_device, prepare

__all__ = ["BACKENDS", "Demand", "Reading", "attend", "choose", "explain", "know_device", "prepare"]
