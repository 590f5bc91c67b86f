"""A search on Fashion-MNIST with the settings that a method's paper has for CIFAR-10: PR-DARTS unless one is named.

It reproduces no published result. Not yet run here over all 200 epochs.

    python -m prdarts_jax.main --config=configs/fashion_mnist.py --workdir=runs/fashion_mnist
"""

from ml_collections import ConfigDict

from prdarts_jax.run import settings


def get_config(method: str = "pr_darts") -> ConfigDict:
    """The settings of a method's paper, on Fashion-MNIST."""
    config = settings.search(method)
    config.dataset = "fashion_mnist"
    return config
