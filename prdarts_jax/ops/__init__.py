"""What an edge may compute: kernels, and a registry of candidate ops."""

from prdarts_jax.ops import candidates, kernels
from prdarts_jax.ops.changes import Dropout, candidate, drop_path_factors, partially, with_affine
from prdarts_jax.ops.op import Moments, Norm, Op, Params, random_key, running
from prdarts_jax.ops.parameters import (
    batch_normalizer,
    batch_normalizer_again,
    init_moments,
    init_params,
    init_stats,
    update_running,
)
from prdarts_jax.ops.preprocess import (
    FACTORIZED_REDUCE_LAYERS,
    RELU_CONV_NORM_LAYERS,
    factorized_reduce,
    relu_conv_norm,
)
from prdarts_jax.ops.registry import Candidate, Group, Layers, find, group, names, register

__all__ = [
    "FACTORIZED_REDUCE_LAYERS",
    "RELU_CONV_NORM_LAYERS",
    "Candidate",
    "Dropout",
    "Group",
    "Layers",
    "Moments",
    "Norm",
    "Op",
    "Params",
    "batch_normalizer",
    "batch_normalizer_again",
    "candidate",
    "candidates",
    "drop_path_factors",
    "factorized_reduce",
    "find",
    "group",
    "init_moments",
    "init_params",
    "init_stats",
    "kernels",
    "names",
    "partially",
    "random_key",
    "register",
    "relu_conv_norm",
    "running",
    "update_running",
    "with_affine",
]
