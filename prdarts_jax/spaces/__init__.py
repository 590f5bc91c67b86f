"""Search spaces, the genotypes found in them, and how scores of ops become genotypes."""

from prdarts_jax.spaces.genotypes import CELL_TYPES, layout
from prdarts_jax.spaces.named import NAMED, darts, darts_no_none, named, nas_bench_201, s1, s2, s3, s4
from prdarts_jax.spaces.space import SearchSpace

__all__ = [
    "CELL_TYPES",
    "NAMED",
    "SearchSpace",
    "darts",
    "darts_no_none",
    "layout",
    "named",
    "nas_bench_201",
    "s1",
    "s2",
    "s3",
    "s4",
]
