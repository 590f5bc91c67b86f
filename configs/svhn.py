"""A search on SVHN (cropped digits) with the settings that a method's paper has for CIFAR-10, but without mirroring:
PR-DARTS unless a method is named.

It reproduces no published result. Not yet run here over all 200 epochs.

    python -m prdarts_jax.main --config=configs/svhn.py --workdir=runs/svhn
"""

from ml_collections import ConfigDict

from prdarts_jax.run import settings


def get_config(method: str = "pr_darts") -> ConfigDict:
    """The settings of a method's paper, on SVHN."""
    config = settings.search(method)
    config.dataset = "svhn"
    config.augmentation.flip = False  # a mirrored digit is another shape
    return config
