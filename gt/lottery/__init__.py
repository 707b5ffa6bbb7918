"""``python -m gt.lottery``: the hardware lottery, the cost of each attention backend on this machine."""
