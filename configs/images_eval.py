r"""A found cell trained from scratch on images of your own: the network to keep.

FOLDER and the fields of images are those of configs/images.py, whose test images are then those of this training.

    python -m prdarts_jax.main --config=configs/images_eval.py --workdir=runs/images_eval --config.dataset=FOLDER \
        --config.genotype=runs/images/genotype.json
"""

from ml_collections import ConfigDict

from prdarts_jax.run import settings


def get_config() -> ConfigDict:
    """The settings."""
    config = settings.training()
    config.dataset = "images"
    config.image_size = 32
    config.channels = 16
    config.cells = 5
    config.drop_path = 0.0
    config.epochs = 60
    config.batch_size = 16
    config.augmentation.cutout = 8
    return config
