"""Molecules of one's own, from tables of SMILES."""
