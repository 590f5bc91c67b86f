"""PR-DARTS on images of your own.

A small search in DARTS's space, for some hundreds to thousands of images; it reproduces no published result. FOLDER has
a folder of images for each class, or train/ and test/ with such folders; an .npz, cifar-10-batches-py or another name
in TFDS works as well. All images are resized to 32x32 pixels; --config.image_size=48,64 sets another height and width.

    python -m prdarts_jax.main --config=configs/images.py --workdir=runs/images --config.dataset=FOLDER

The found cell is then trained by configs/images_eval.py.
"""

from ml_collections import ConfigDict

from prdarts_jax.run import settings


def get_config(method: str = "pr_darts") -> ConfigDict:
    """The settings of a method's paper, scaled down to few images."""
    config = settings.search(method)
    config.dataset = "images"
    config.image_size = 32
    config.epochs = 30
    config.batch_size = 16
    config.steps_per_call = 10
    config.augmentation.cutout = 0
    config.channels = 8
    config.cells = 5
    config.logits.learning_rate = 0.003  # larger steps, since there are hundreds instead of tens of thousands

    config.evaluation.channels = 16  # as in images_eval.py
    config.evaluation.cells = 5
    config.evaluation.drop_path = 0.0
    config.evaluation.batch_size = 16
    config.evaluation.augmentation.cutout = 8
    return config
