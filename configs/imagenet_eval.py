"""The training of a found cell from scratch on ImageNet: 14 cells, 48 channels, 224 pixels, 250 epochs, auxiliary head.

PR-DARTS's cell has 24.1 % top-1 and 7.3 % top-5 error with these settings. The optimizer and the schedule are those of
PR-DARTS's released code (batch size 256, learning rate 0.1 falling linearly, weight decay 3e-5), and the label
smoothing of 0.1 is that of the papers. Worker processes read, crop, mirror and jitter the images. Not run here at this
size.

    python -m prdarts_jax.main --config=configs/imagenet_eval.py --workdir=runs/imagenet_eval --config.data_dir=DIR
"""

from ml_collections import ConfigDict

from prdarts_jax.run import settings


def get_config() -> ConfigDict:
    """The settings."""
    config = settings.training()
    config.dataset = "imagenet"
    config.form = "imagenet"
    config.image_size = 224
    config.jitter = True
    config.augmentation.cutout = 0
    config.channels = 48
    config.cells = 14
    config.auxiliary_weight = 0.4
    config.drop_path = 0.0
    config.label_smoothing = 0.1
    config.epochs = 250
    config.batch_size = 256
    config.weights.learning_rate = 0.1
    config.weights.schedule = "linear"
    config.weights.weight_decay = 3e-5
    return config
