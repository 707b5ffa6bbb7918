"""Schemas and blocks of networks, shared by tests of whole networks."""

from functools import partial

from ogb.utils.features import get_atom_feature_dims, get_bond_feature_dims

from gt.layers import GINE, Attention, FeedForward, ParallelBlock
from gt.schema import Schema

SCHEMA = Schema(node_vocab=(5, 5), edge_vocab=(3,), outputs=3)  # of `random_graph`
TwoHeads = partial(Attention, heads=2)


def gps(local=GINE, heads=4, block=ParallelBlock, **options):
    """Factory of a GPS block."""
    return partial(block, local=local, attention=partial(Attention, heads=heads), feed_forward=FeedForward, **options)


# molecules of OGB; the papers' atom table has 173 rows, OGB's now has more
ATOMS, BONDS = tuple(get_atom_feature_dims()), tuple(get_bond_feature_dims())
NEW_ROWS = sum(ATOMS) - 173
MOLECULES = partial(Schema, node_vocab=ATOMS, edge_vocab=BONDS)
