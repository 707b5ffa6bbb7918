"""Tasks made up so that each shows one thing that a mask, an encoding or a depth can or cannot do."""
