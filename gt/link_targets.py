"""Layout of link targets when links are ranked within their graphs."""

from enum import IntEnum

COLUMNS = 3  # of a target: whether the link exists (NaN: unlabelled), the row's `Role`, the weight of a ranked link


class Role(IntEnum):
    """The role of a row: a link comes first, its rivals follow."""

    ASKED = 0  # a pair of the data
    RIVAL = 1  # the link's source and another node
    LINKED = 2  # a rival that is also linked, excluded from filtered ranks
    ITSELF = 3  # the source paired with itself, excluded only from extended ranks
