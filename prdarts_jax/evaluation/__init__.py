"""Training the network of a found cell from scratch, and testing it."""
