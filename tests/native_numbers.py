"""The random number generator of the C kernels, in pure Python."""

MODULUS = 2**32


def mix(x):
    """The 32-bit integer hash lowbias32."""
    for shift, factor in ((16, 0x7FEB352D), (15, 0x846CA68B)):
        x = (x ^ x >> shift) * factor % MODULUS
    return x ^ x >> 16


def random_numbers(seed, row, places):
    """The random numbers of a row, one for each place."""
    first = mix((seed + row * 0x9E3779B9) % MODULUS)
    second = mix((seed >> 32) ^ (row >> 32) ^ first)
    third = mix((first + second) % MODULUS)
    return [mix(mix((place + second) % MODULUS) ^ third) for place in range(places)]
