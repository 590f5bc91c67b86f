"""Fair DARTS on CIFAR-10 (Chu et al., ECCV 2020): no `none`, w01 = 10, threshold 0.85.

Not yet run here over all its epochs.

    python -m prdarts_jax.main --config=configs/fair_darts_cifar10.py --workdir=runs/fair_darts_cifar10
"""

from ml_collections import ConfigDict

from prdarts_jax.run import settings


def get_config() -> ConfigDict:
    """The settings."""
    config = settings.darts()
    config.method = "fair_darts"
    config.space = "darts_no_none"
    config.batch_size = 128
    config.weights.learning_rate = 0.005
    config.logits.learning_rate = 3e-3
    config.logits.b1 = 0.9
    return config
