"""R-DARTS on CIFAR-10 (Zela et al., ICLR 2020): DARTS with nine times the weight decay, stopped early.

The paper tries decays from 3e-4 to 243e-4, and drop-path (config.r_darts.drop_path) from 0 to 0.6. Not yet
run here over all its epochs.

    python -m prdarts_jax.main --config=configs/r_darts_cifar10.py --workdir=runs/r_darts_cifar10
"""

from ml_collections import ConfigDict

from prdarts_jax.run import settings


def get_config() -> ConfigDict:
    """The settings."""
    config = settings.darts()
    config.method = "r_darts"
    config.weights.weight_decay = 27e-4
    return config
