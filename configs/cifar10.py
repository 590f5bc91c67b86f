"""A search on CIFAR-10 with the settings of a method's paper: PR-DARTS (Zhou et al., 2020) unless one is named.

    python -m prdarts_jax.main --config=configs/cifar10.py --workdir=runs/cifar10
    python -m prdarts_jax.main --config=configs/cifar10.py:darts --workdir=runs/darts

Published test errors of cells that were found in this way and trained from scratch, and days of the search: PR-DARTS
2.32 % (0.17 days), DARTS 3.00 % (1.5; second order, --config.darts.second_order=True, 2.76 %, 4), P-DARTS 2.50 % (0.3),
PC-DARTS 2.57 % (0.1), GDAS 2.93 % (0.2). None of these searches was run here over all its epochs.
"""

from ml_collections import ConfigDict

from prdarts_jax.run import settings


def get_config(method: str = "pr_darts") -> ConfigDict:
    """The settings of a method's paper."""
    return settings.search(method)
