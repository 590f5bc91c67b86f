"""A search on CIFAR-100 with the settings that a method's paper has for CIFAR-10: PR-DARTS unless a method is named.

PR-DARTS's cell, found on CIFAR-10, has 16.45 % error on CIFAR-100; a search on CIFAR-100 itself reproduces no
published result. Not yet run here over all 200 epochs.

    python -m prdarts_jax.main --config=configs/cifar100.py --workdir=runs/cifar100
"""

from ml_collections import ConfigDict

from prdarts_jax.run import settings


def get_config(method: str = "pr_darts") -> ConfigDict:
    """The settings of a method's paper, on CIFAR-100."""
    config = settings.search(method)
    config.dataset = "cifar100"
    return config
