"""A found cell trained from scratch on CIFAR-100 as PR-DARTS's released code does: drop-path up to 0.4.

The paper's cell has 16.45 % error so. Not run here.

    python -m prdarts_jax.main --config=configs/cifar100_eval.py --workdir=runs/cifar100_eval
"""

from ml_collections import ConfigDict

from prdarts_jax.run import settings


def get_config() -> ConfigDict:
    """The settings."""
    config = settings.training()
    config.dataset = "cifar100"
    config.drop_path = 0.4
    return config
