from gt.encodings.base import Encoding, EncodingModule, PackedGraphs
from gt.encodings.degree import Degree
from gt.encodings.laplacian import Laplacian
from gt.encodings.sequence import LearnedPositions, Rotary, Sinusoidal
from gt.encodings.walks import RandomWalk

__all__ = [
    "Degree",
    "Encoding",
    "EncodingModule",
    "Laplacian",
    "LearnedPositions",
    "PackedGraphs",
    "RandomWalk",
    "Rotary",
    "Sinusoidal",
]
