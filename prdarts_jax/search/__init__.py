"""How a cell is found: the bilevel step, and methods made of parts."""
