"""First order DARTS on CIFAR-10 with the settings of its paper (Liu et al., 2019, section 3.1).

The first-order cell of that paper, DARTS V1, has 3.00 % error on CIFAR-10; its search took 1.5 days.
Not yet run here over all 50 epochs.

    python -m prdarts_jax.main --config=configs/darts_cifar10.py --workdir=runs/darts_cifar10
"""

from ml_collections import ConfigDict

from prdarts_jax.run import settings


def get_config() -> ConfigDict:
    """The settings."""
    return settings.darts()
