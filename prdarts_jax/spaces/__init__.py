"""Search spaces, the genotypes found in them, and how scores of ops become genotypes."""

from prdarts_jax.spaces.genotypes import CELL_TYPES, layout
from prdarts_jax.spaces.named import (
    NAMED,
    darts,
    darts_all_skip,
    darts_no_none,
    darts_no_skip,
    named,
    nas_bench_201,
    s1,
    s2,
    s3,
    s4,
    single_cell,
    single_cell_all_skip,
    single_cell_no_skip,
    transnas_bench_101,
)
from prdarts_jax.spaces.space import SearchSpace

__all__ = [
    "CELL_TYPES",
    "NAMED",
    "SearchSpace",
    "darts",
    "darts_all_skip",
    "darts_no_none",
    "darts_no_skip",
    "layout",
    "named",
    "nas_bench_201",
    "s1",
    "s2",
    "s3",
    "s4",
    "single_cell",
    "single_cell_all_skip",
    "single_cell_no_skip",
    "transnas_bench_101",
]
