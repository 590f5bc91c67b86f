"""One search step of the authors' own PyTorch code, from a checkout of their repository, for comparison.

It needs PyTorch. The repositories may be salesforce/PR-DARTS (PRDARTS_search/) and quark0/darts (cnn/). Their training
scripts need a GPU and data of their own, so the step is put together here from their network, on the CPU or a GPU: one
update of the weights by SGD and one of the logits by Adam, in the order and with the settings of their scripts. This
has not yet been run on a GPU.
"""

import contextlib
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from flax.traverse_util import flatten_dict
from ml_collections import ConfigDict

_FOLDERS = {"pr_darts_released": "PRDARTS_search", "darts": "cnn"}
_NETWORKS = {
    "pr_darts_released": {"pool_norm": False, "head_norm": True, "running_statistics": False},
    "darts": {"pool_norm": True, "head_norm": False, "running_statistics": True, "darts.second_order": False},
}


def tensors(images: np.ndarray, labels: np.ndarray, device: str = "cpu") -> tuple[Any, Any]:
    """Images f32[B, H, W, 3] and labels of any integer dtype as PyTorch tensors for their network, on a device."""
    import torch

    images = np.ascontiguousarray(images.transpose(0, 3, 1, 2))
    return torch.from_numpy(images).to(device), torch.from_numpy(labels.astype(np.int64)).to(device)


def make_step(checkout: Path, config: ConfigDict, num_classes: int, device: str = "cpu") -> Callable[[Any, Any], None]:
    """The step of the method that `config` names: 'pr_darts_released', or 'darts' of first order.

    Args:
      checkout: folder of their repository.
      config: of a search.
      num_classes: number of classes of the data.
      device: of PyTorch, 'cpu' or 'cuda'.

    Returns:
      A function of the images and labels of `tensors`, which both updates use. It returns when the device is done.

    Raises:
      ValueError: their code would not do the same work, or the checkout has no code of the method.
    """
    if config.method not in _FOLDERS:
        raise ValueError(f"config.method={config.method!r} must have code of its authors: {', '.join(_FOLDERS)}")
    folder = checkout / _FOLDERS[config.method]
    if not folder.is_dir():
        raise ValueError(f"{checkout} has no folder {folder.name}, where the code of {config.method} is expected")
    released = config.method == "pr_darts_released"
    fixed = _NETWORKS[config.method] | {"dtype": "float32"}
    if released:
        fixed["cells"] = max(config.cells // 3 * 3, 3)
    fields = flatten_dict(config.to_dict(), sep=".")
    for field, value in fixed.items():
        if (found := fields[field]) != value:
            raise ValueError(f"config.{field}={found!r} must be {value!r} for the authors' code to do the same work")

    import torch  # after the checks, which do not need it

    sys.path.insert(0, str(folder))
    torch.manual_seed(0)
    criterion = torch.nn.CrossEntropyLoss()
    with contextlib.redirect_stdout(None):  # they print every op
        if released:
            from cell_operations import SearchSpaceNames
            from search_model_prdarts_nasnet import NASNetworkPRDARTS

            ops = SearchSpaceNames["darts"]
            network = NASNetworkPRDARTS(config.channels, config.cells // 3, 4, 4, 3, num_classes, ops, False, False)
            weights, logits = list(network.get_weights()), network.get_alphas()
            if device != "cpu":
                regularization = network.get_regularization

                def on_device(*chosen):
                    with torch.device(device):  # otherwise it indexes a tensor on the CPU by one on the GPU
                        return regularization(*chosen)

                network.get_regularization = on_device
        else:
            if device == "cpu":
                torch.Tensor.cuda = lambda tensor, *_, **__: tensor  # the network moves its logits to the GPU
            from model_search import Network

            network = Network(config.channels, num_classes, config.cells, criterion)
            weights, logits = list(network.parameters()), network.arch_parameters()
    torch.backends.cudnn.benchmark, torch.backends.cudnn.deterministic = not released, released
    network.to(device).train()
    settings = config.weights
    sgd = torch.optim.SGD(
        weights,
        settings.learning_rate,
        settings.momentum,
        weight_decay=settings.weight_decay,
        nesterov=settings.nesterov,
    )
    adam = torch.optim.Adam(logits, config.logits.learning_rate, (0.5, 0.999), weight_decay=config.logits.weight_decay)
    print(f"authors' code: PyTorch {torch.__version__} on {device}, {torch.get_num_threads()} threads")

    def update_weights(images, labels):
        sgd.zero_grad()
        predicted = network(images)
        criterion(predicted[1] if isinstance(predicted, tuple) else predicted, labels).backward()
        torch.nn.utils.clip_grad_norm_(weights, settings.clip)
        sgd.step()

    def update_logits(images, labels):
        adam.zero_grad()
        predicted = network(images)
        if isinstance(predicted, tuple):
            loss = criterion(predicted[1], labels) + predicted[2]  # PR-DARTS: the regulariser
        else:
            loss = criterion(predicted, labels)
        loss.backward()
        adam.step()

    order = (update_weights, update_logits) if released else (update_logits, update_weights)

    def step(images: Any, labels: Any) -> None:
        for update in order:
            update(images, labels)
        if device != "cpu":
            torch.cuda.synchronize()

    return step
