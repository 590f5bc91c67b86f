"""One search step of the authors' own PyTorch code, from a checkout of their repository, to measure against.

Needs PyTorch. Known are salesforce/PR-DARTS (PRDARTS_search/) and quark0/darts (cnn/). Their training scripts need a
GPU and data of their own, so the step is put together here from their network, on the CPU, with their optimizers and
settings: one update of the weights and one of the logits.
"""

import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np


def make_step(checkout: Path, method: str, channels: int, cells: int) -> Callable[[np.ndarray, np.ndarray], float]:
    """The step of `method` ('pr_darts' or 'darts', first order) on a network of that size for ten classes.

    Returns:
      A function (images f32[B, H, W, 3], labels i64[B]) -> loss of the logits; both updates use these images.

    Raises:
      FileNotFoundError: if the checkout has no code of the method.
    """
    import torch

    folder = checkout / {"pr_darts": "PRDARTS_search", "darts": "cnn"}[method]
    if not folder.is_dir():
        raise FileNotFoundError(f"{checkout} has no folder {folder.name}, where the code of {method} is expected")
    sys.path.insert(0, str(folder))
    criterion = torch.nn.CrossEntropyLoss()
    if method == "pr_darts":
        from cell_operations import SearchSpaceNames
        from search_model_prdarts_nasnet import NASNetworkPRDARTS

        network = NASNetworkPRDARTS(channels, cells // 3, 4, 4, 3, 10, SearchSpaceNames["darts"], False, False)
        weights, logits = network.get_weights(), network.get_alphas()

        def losses(images):
            _, predicted, regularizer = network(images)
            return predicted, regularizer
    else:
        torch.Tensor.cuda = lambda tensor, *_, **__: tensor  # the network moves its logits to the GPU
        from model_search import Network

        network = Network(channels, 10, cells, criterion)
        weights, logits = network.parameters(), network.arch_parameters()

        def losses(images):
            return network(images), 0.0

    weights = list(weights)
    sgd = torch.optim.SGD(weights, 0.025, momentum=0.9, weight_decay=3e-4)
    adam = torch.optim.Adam(logits, 3e-4, betas=(0.5, 0.999), weight_decay=1e-3)
    network.train()

    def update(optimizer, images, labels):
        optimizer.zero_grad()
        predicted, regularizer = losses(images)
        loss = criterion(predicted, labels) + regularizer
        loss.backward()
        if optimizer is sgd:
            torch.nn.utils.clip_grad_norm_(weights, 5)
        optimizer.step()
        return loss.item()

    def step(images: np.ndarray, labels: np.ndarray) -> float:
        images = torch.from_numpy(np.ascontiguousarray(images.transpose(0, 3, 1, 2)))
        labels = torch.from_numpy(labels)
        first, second = (sgd, adam) if method == "pr_darts" else (adam, sgd)
        return (update(first, images, labels), update(second, images, labels))[first is sgd]

    return step
