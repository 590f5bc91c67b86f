"""What a search draws random numbers for: the numbers that its keys are derived from, see `epochs.key_for`."""

import enum


class Purpose(enum.IntEnum):
    """The purposes of a search. Their numbers must not change, or searches give other results."""

    WEIGHTS = 0  # what the update of the weights draws: gates, dropout
    LOGITS = 1  # what the update of the logits draws
    ORDER = 2  # of the images of an epoch
    AUGMENTATION = 3
    BEST_OF_EPOCH = 4
    HESSIAN = 5
    MEAN_WEIGHTS = 6
    BEST_CELL = 7
    SMOOTHING = 8
    REMOVALS = 8  # after the search, at a step at which op weights are no longer smoothed
    FINETUNING = 9
    CHOSEN_CELL = 10  # its accuracy by shared weights
