from gt.attention.costs import Demand
from gt.attention.dispatch import BACKENDS, Reading, attend, choose, explain, look_up_device, prepare

__all__ = ["BACKENDS", "Demand", "Reading", "attend", "choose", "explain", "look_up_device", "prepare"]
