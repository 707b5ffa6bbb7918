"""User-supplied molecules, from tables of SMILES."""
