"""``python -m gt.puzzles``: which mask, encoding and depth solve which puzzle, as a small trained grid."""
