"""What computes: the executor of a cell, the supernets, the discrete networks."""
