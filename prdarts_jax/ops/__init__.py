"""The ops of an edge: kernels, and a registry of candidate ops."""

from prdarts_jax.ops import kernels
from prdarts_jax.ops.candidates import (
    FACTORIZED_REDUCE_LAYERS,
    RELU_CONV_NORM_LAYERS,
    factorized_reduce,
    relu_conv_norm,
)
from prdarts_jax.ops.changes import Dropout, candidate, drop_path_factors, with_affine
from prdarts_jax.ops.op import (
    Norm,
    Op,
    batch_normalizer,
    batch_normalizer_again,
    init_moments,
    init_params,
    init_stats,
    random_key,
    running,
    update_running,
)
from prdarts_jax.ops.registry import Layers, find, group, names, register

__all__ = [
    "FACTORIZED_REDUCE_LAYERS",
    "RELU_CONV_NORM_LAYERS",
    "Dropout",
    "Layers",
    "Norm",
    "Op",
    "batch_normalizer",
    "batch_normalizer_again",
    "candidate",
    "drop_path_factors",
    "factorized_reduce",
    "find",
    "group",
    "init_moments",
    "init_params",
    "init_stats",
    "kernels",
    "names",
    "random_key",
    "register",
    "relu_conv_norm",
    "running",
    "update_running",
    "with_affine",
]
