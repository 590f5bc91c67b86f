"""PR-DARTS on Fashion-MNIST with the settings that the paper has for CIFAR-10.

Reproduces no published figure. Not yet run here over all 200 epochs.

    python -m prdarts_jax.main --config=configs/fashion_mnist.py --workdir=runs/fashion_mnist
"""

from ml_collections import ConfigDict

from prdarts_jax.run import settings


def get_config() -> ConfigDict:
    """The settings."""
    config = settings.defaults()
    config.dataset = "fashion_mnist"
    return config
