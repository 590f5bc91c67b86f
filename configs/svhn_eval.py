"""The training of a found cell from scratch on SVHN's 73,257 images with CIFAR-10's settings, but without mirroring.

PR-DARTS has no published result on SVHN. Not run here.

    python -m prdarts_jax.main --config=configs/svhn_eval.py --workdir=runs/svhn_eval
"""

from ml_collections import ConfigDict

from prdarts_jax.run import settings


def get_config() -> ConfigDict:
    """The settings."""
    config = settings.training()
    config.dataset = "svhn"
    config.augmentation.flip = False
    return config
