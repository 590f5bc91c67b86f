"""PR-DARTS on SVHN (cropped digits) with the settings that the paper has for CIFAR-10, images not flipped.

Reproduces no published figure. Not yet run here over all 200 epochs.

    python -m prdarts_jax.main --config=configs/svhn.py --workdir=runs/svhn
"""

from ml_collections import ConfigDict

from prdarts_jax.run import settings


def get_config() -> ConfigDict:
    """The settings."""
    config = settings.defaults()
    config.dataset = "svhn"
    config.augmentation.flip = False  # a mirrored digit is another shape
    return config
