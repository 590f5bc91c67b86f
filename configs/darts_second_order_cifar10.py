"""Second order DARTS on CIFAR-10 with the settings of its paper (Liu et al., 2019, section 3.1).

The cell of that paper, DARTS V2, has 2.76 % error on CIFAR-10; its search took 4 days. Not yet run here over all its
epochs.

    python -m prdarts_jax.main --config=configs/darts_second_order_cifar10.py --workdir=runs/darts_second_order_cifar10
"""

from ml_collections import ConfigDict

from prdarts_jax.run import settings


def get_config() -> ConfigDict:
    """The settings."""
    config = settings.darts()
    config.darts.second_order = True
    return config
