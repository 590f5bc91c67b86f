"""PR-DARTS on CIFAR-10 with the settings of the paper (Zhou et al., 2020, section 5).

The paper's cell, found so, has 2.32 % error on CIFAR-10 when trained from scratch; its search took 0.17 days.
Not yet run here over all 200 epochs.

    python -m prdarts_jax.main --config=configs/cifar10.py --workdir=runs/cifar10
"""

from ml_collections import ConfigDict

from prdarts_jax.run import settings


def get_config() -> ConfigDict:
    """The settings."""
    return settings.defaults()
