"""The training of a found cell from scratch on CIFAR-100, as in PR-DARTS's released code: drop-path up to 0.4.

The paper's cell has 16.45 % error with these settings. Not run here.

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
