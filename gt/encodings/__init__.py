from gt.encodings.base import Encoding, PackedGraphs, precomputed
from gt.encodings.degree import Degree
from gt.encodings.distances import Distance, EdgePath
from gt.encodings.edges import Edges
from gt.encodings.laplacian import Laplacian
from gt.encodings.relative import RelativeWalks
from gt.encodings.sequence import LearnedPositions, Rotary, Sinusoidal
from gt.encodings.shuffled import Shuffled
from gt.encodings.walks import RandomWalk

__all__ = [
    "Degree",
    "Distance",
    "EdgePath",
    "Edges",
    "Encoding",
    "Laplacian",
    "LearnedPositions",
    "PackedGraphs",
    "RandomWalk",
    "RelativeWalks",
    "Rotary",
    "Shuffled",
    "Sinusoidal",
    "precomputed",
]
