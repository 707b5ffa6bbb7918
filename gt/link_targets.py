"""What the targets of links say where links are ranked within their graphs."""

from enum import IntEnum

COLUMNS = 3  # of a target: whether there is a link (NaN: unknown), the row's `Role`, the weight of a link to be ranked


class Role(IntEnum):
    """What a row is asked for. A link's own row begins a question, its rivals follow."""

    ASKED = 0  # a pair of the data
    RIVAL = 1  # the link's source and another node
    LINKED = 2  # such a rival that is linked too, which the filtered ranks leave out
    ITSELF = 3  # the source and itself, which the extended ranks leave out besides
