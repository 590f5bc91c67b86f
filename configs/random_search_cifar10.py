"""Random search with weight sharing on CIFAR-10 (Li, Talwalkar, UAI 2019), in DARTS's space with its settings.

Not yet run here over all its epochs.

    python -m prdarts_jax.main --config=configs/random_search_cifar10.py --workdir=runs/random_search_cifar10
"""

from ml_collections import ConfigDict

from prdarts_jax.run import settings


def get_config() -> ConfigDict:
    """The settings."""
    config = settings.darts()
    config.method = "random_search"
    return config
