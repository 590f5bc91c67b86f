"""What an edge may compute: kernels, and a registry of candidate ops."""

<<<<<<< HEAD
from prdarts_jax.ops import candidates, kernels
from prdarts_jax.ops.changes import Dropout, candidate, drop_path_factors
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
    "random_key",
    "register",
    "relu_conv_norm",
    "running",
    "update_running",
]
=======
from prdarts_jax.ops.candidates import *  # noqa: F403

_GROUPS = {
    "none": "none",
    "skip_connect": "skip",
    "sep_conv_3x3": "conv",
    "sep_conv_5x5": "conv",
    "dil_conv_3x3": "conv",
    "dil_conv_5x5": "conv",
    "avg_pool_3x3": "pool",
    "max_pool_3x3": "pool",
    "noise": "noise",
    "sep_conv_7x7": "conv",
    "conv_7x1_1x7": "conv",
    "nor_conv_1x1": "conv",
    "nor_conv_3x3": "conv",
}


def names() -> tuple[str, ...]:
    """The registered ops."""
    return tuple(_GROUPS)


def group(name: str) -> str:
    """The group of an op: 'none', 'skip', 'noise', 'pool' or 'conv'."""
    return _GROUPS[name]
>>>>>>> h-spaces
