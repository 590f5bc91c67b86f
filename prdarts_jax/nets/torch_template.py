"""A trained image classifier in PyTorch. It needs this file, the .npz with the weights beside it, PyTorch and NumPy.

    import classifier_torch

    network = classifier_torch.load()
    logits = network(pixels)  # f32[B, classes], in the order of CLASSES; pixels from 0 to 255, [B, channels, H, W]

`network` is an `nn.Module` like any other: it can be trained further, saved, and written as ONNX by

    torch.onnx.export(network, (pixels,), "classifier.onnx", input_names=["pixels"], dynamic_shapes=({0: "batch"},))
"""

import pathlib

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

# The cells. Nodes 0 and 1 of cell k are the outputs of the cells k-2 and k-1. Each further node is the sum of the
# results of two pairs (op, input node). The output of a cell is the concatenation of the nodes in ..._CONCAT.
NORMAL = (("skip_connect", 0), ("sep_conv_3x3", 1))
NORMAL_CONCAT = (2,)
REDUCE = (("max_pool_3x3", 0), ("skip_connect", 1))
REDUCE_CONCAT = (2,)
FORM = "cifar"  # or "imagenet", with three convolutions of stride 2 before the cells
CHANNELS = 4  # width of the first cells
CELLS = 3
CLASSES = ("0", "1")
HEIGHT, WIDTH = (32, 32)  # size of the images that it was trained with; other sizes work too
MEAN = (0.5, 0.5, 0.5)  # mean of each channel, for pixels in [0, 1]
STD = (0.25, 0.25, 0.25)


def conv(inputs, outputs, kernel, stride=1, dilation=1, groups=1):
    """A convolution without bias that divides the size of an image by the stride; `kernel`, `stride` may be pairs."""
    rows, columns = (kernel, kernel) if isinstance(kernel, int) else kernel
    padding = (dilation * (rows // 2), dilation * (columns // 2))
    return nn.Conv2d(inputs, outputs, (rows, columns), stride, padding, dilation, groups, bias=False)


class Chain(nn.Module):
    """Layers one after the other."""

    def __init__(self, *layers):
        super().__init__()
        self.op = nn.Sequential(*layers)

    def forward(self, x):
        """[B, C, H, W] -> [B, D, h, w]."""
        return self.op(x)


def resize(inputs, outputs):
    """Changes the number of channels."""
    return Chain(nn.ReLU(), conv(inputs, outputs, 1), nn.BatchNorm2d(outputs))


class Halve(nn.Module):
    """Halves height and width: half of the channels see every second pixel, half the pixels to the lower right of
    those."""

    def __init__(self, inputs, outputs):
        super().__init__()
        self.conv_1 = conv(inputs, outputs // 2, 1, stride=2)
        self.conv_2 = conv(inputs, outputs - outputs // 2, 1, stride=2)
        self.bn = nn.BatchNorm2d(outputs)

    def forward(self, x):
        """[B, C, H, W] -> [B, D, ceil(H / 2), ceil(W / 2)]."""
        x = F.relu(x)
        shifted = F.pad(x, (0, x.shape[3] % 2, 0, x.shape[2] % 2))[:, :, 1:, 1:]
        return self.bn(torch.cat([self.conv_1(x), self.conv_2(shifted)], dim=1))


class Zero(nn.Module):
    """The op `none`: gives zeros."""

    def __init__(self, stride):
        super().__init__()
        self.stride = stride

    def forward(self, x):
        """[B, C, H, W] -> [B, C, ceil(H / stride), ceil(W / stride)]."""
        return torch.zeros_like(x[:, :, :: self.stride, :: self.stride])


def separable(channels, kernel, stride, dilation=1):
    """A depthwise convolution, then a 1x1 convolution over the channels."""
    within = conv(channels, channels, kernel, stride, dilation, groups=channels)
    return nn.ReLU(), within, conv(channels, channels, 1), nn.BatchNorm2d(channels)


def sep_conv(kernel):
    """Two separable convolutions."""
    return lambda c, stride: Chain(*separable(c, kernel, stride), *separable(c, kernel, 1))


def dil_conv(kernel):
    """A separable convolution with dilation 2."""
    return lambda c, stride: Chain(*separable(c, kernel, stride, dilation=2))


def conv_7x1_1x7(c, stride):
    """A convolution along the rows, then one along the columns."""
    row, column = conv(c, c, (1, 7), (1, stride)), conv(c, c, (7, 1), (stride, 1))
    return nn.Sequential(nn.ReLU(), row, column, nn.BatchNorm2d(c))


OPS = {  # (channels, stride) -> module
    "none": lambda c, stride: Zero(stride),
    "skip_connect": lambda c, stride: nn.Identity() if stride == 1 else Halve(c, c),
    "avg_pool_3x3": lambda c, stride: nn.AvgPool2d(3, stride, padding=1, count_include_pad=False),
    "max_pool_3x3": lambda c, stride: nn.MaxPool2d(3, stride, padding=1),
    "sep_conv_3x3": sep_conv(3),
    "sep_conv_5x5": sep_conv(5),
    "sep_conv_7x7": sep_conv(7),
    "dil_conv_3x3": dil_conv(3),
    "dil_conv_5x5": dil_conv(5),
    "conv_7x1_1x7": conv_7x1_1x7,
}


class Cell(nn.Module):
    """A cell. A `reduction` halves height and width. With `halve`, the first input is twice as large as the second."""

    def __init__(self, inputs, channels, reduction, halve):
        super().__init__()
        entries, self.concat = (REDUCE, REDUCE_CONCAT) if reduction else (NORMAL, NORMAL_CONCAT)
        self.preprocess0 = (Halve if halve else resize)(inputs[0], channels)
        self.preprocess1 = resize(inputs[1], channels)
        self.sources = [source for _, source in entries]
        self._ops = nn.ModuleList(OPS[op](channels, 2 if reduction and source < 2 else 1) for op, source in entries)

    def forward(self, before, last):
        """Computes the output from those of the cells k-2 (`before`) and k-1 (`last`)."""
        nodes = [self.preprocess0(before), self.preprocess1(last)]
        results = (op(nodes[source]) for op, source in zip(self._ops, self.sources, strict=True))
        for first in results:
            nodes.append(first + next(results))
        return torch.cat([nodes[node] for node in self.concat], dim=1)


class Network(nn.Module):
    """The network, from pixels to logits."""

    def __init__(self):
        super().__init__()
        for name, values in (("mean", MEAN), ("std", STD)):
            self.register_buffer(name, torch.tensor(values).reshape(1, -1, 1, 1), persistent=False)
        c = CHANNELS
        if FORM == "cifar":
            inputs = (3 * c, 3 * c)
            self.stem = nn.Sequential(conv(len(MEAN), 3 * c, 3), nn.BatchNorm2d(3 * c))
        else:
            inputs, half = (c, c), (conv(len(MEAN), c // 2, 3, stride=2), nn.BatchNorm2d(c // 2))
            self.stem0 = nn.Sequential(*half, nn.ReLU(), conv(c // 2, c, 3, stride=2), nn.BatchNorm2d(c))
            self.stem1 = nn.Sequential(nn.ReLU(), conv(c, c, 3, stride=2), nn.BatchNorm2d(c))
        self.cells, halve = nn.ModuleList(), FORM == "imagenet"
        for k in range(CELLS):
            reduction = k in (CELLS // 3, 2 * CELLS // 3)
            c *= 2 if reduction else 1
            self.cells.append(Cell(inputs, c, reduction, halve))
            inputs = (inputs[1], c * len(self.cells[k].concat))
            halve = reduction
        self.classifier = nn.Linear(inputs[1], len(CLASSES))

    def forward(self, pixels):
        """Computes logits f32[B, classes] from pixels 0 to 255, [B, channels, H, W] of any dtype."""
        x = (pixels.float() / 255 - self.mean) / self.std
        if FORM == "cifar":
            before = last = self.stem(x)
        else:
            before = self.stem0(x)
            last = self.stem1(before)
        for cell in self.cells:
            before, last = last, cell(before, last)
        return self.classifier(last.mean(dim=(2, 3)))


def load(weights=None):
    """Loads the network with weights from an .npz, by default the one beside this file, for testing. Call `train()` on
    the network to train it further."""
    network = Network()
    with np.load(weights or pathlib.Path(__file__).with_suffix(".npz")) as arrays:
        network.load_state_dict({name: torch.from_numpy(arrays[name]) for name in arrays})
    return network.eval()
