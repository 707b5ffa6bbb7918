"""The random numbers of the C kernels, in Python."""

ALL = 2**32


def mixed(x):
    for shift, factor in ((16, 0x7FEB352D), (15, 0x846CA68B)):
        x = (x ^ x >> shift) * factor % ALL
    return x ^ x >> 16


def numbers(seed, row, places):
    """(places,) the random numbers of a row, as Python integers."""
    first = mixed((seed + row * 0x9E3779B9) % ALL)
    second = mixed((seed >> 32) ^ (row >> 32) ^ first)
    third = mixed((first + second) % ALL)
    return [mixed(mixed((place + second) % ALL) ^ third) for place in range(places)]
