"""What an edge may compute: kernels, and a registry of candidate ops."""

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
