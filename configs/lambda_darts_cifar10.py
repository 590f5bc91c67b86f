"""Lambda-DARTS on CIFAR-10 (Movahedi et al., ICLR 2023): DARTS's settings, no `none`, lambda to 0.125.

Not yet run here over all its epochs.

    python -m prdarts_jax.main --config=configs/lambda_darts_cifar10.py --workdir=runs/lambda_darts_cifar10
"""

from ml_collections import ConfigDict

from prdarts_jax.run import settings


def get_config() -> ConfigDict:
    """The settings."""
    config = settings.darts()
    config.method = "lambda_darts"
    config.space = "darts_no_none"
    return config
