from gt.encodings.base import Encoding, PackedGraphs, Preparation, precomputed
from gt.encodings.colours import Colours
from gt.encodings.cycles import Cycles
from gt.encodings.degree import Degree
from gt.encodings.distances import Distance, EdgePath
from gt.encodings.edges import Edges
from gt.encodings.invariant import Projections, SignNet
from gt.encodings.kernels import HeatKernel, Resistance
from gt.encodings.laplacian import Eigenvectors, Laplacian
from gt.encodings.relative import RelativeWalks
from gt.encodings.sequence import LearnedPositions, Rotary, Sinusoidal
from gt.encodings.shuffled import Shuffled
from gt.encodings.walks import RandomWalk

__all__ = [
    "Colours",
    "Cycles",
    "Degree",
    "Distance",
    "EdgePath",
    "Edges",
    "Eigenvectors",
    "Encoding",
    "HeatKernel",
    "Laplacian",
    "LearnedPositions",
    "PackedGraphs",
    "Preparation",
    "Projections",
    "RandomWalk",
    "RelativeWalks",
    "Resistance",
    "Rotary",
    "Shuffled",
    "SignNet",
    "Sinusoidal",
    "precomputed",
]
