from gt.attention.dispatch import BACKENDS, attend, choose, prepare

__all__ = ["BACKENDS", "attend", "choose", "prepare"]
