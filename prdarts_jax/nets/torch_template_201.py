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
from torch import nn

# The cell, one of NAS-Bench-201. Node 0 is its input and the last node its output; each node is the sum of the results
# of the ops on the edges from all nodes before it.
EDGES = ("nor_conv_3x3", "none", "skip_connect")  # (0,1) (0,2) (1,2) (0,3) ...
CHANNELS = 4  # width of the first stage; the second and third have two and four times as many channels
CELLS = 1  # number of cells in each of the three stages
CLASSES = ("0", "1")
HEIGHT, WIDTH = (32, 32)  # size of the images that it was trained with; other sizes work too
MEAN = (0.5, 0.5, 0.5)  # mean of each channel, for pixels in [0, 1]
STD = (0.25, 0.25, 0.25)


class Convolution(nn.Module):
    """ReLU, convolution, normalisation."""

    def __init__(self, inputs, outputs, kernel, stride=1):
        super().__init__()
        conv = nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, bias=False)
        self.op = nn.Sequential(nn.ReLU(), conv, nn.BatchNorm2d(outputs))

    def forward(self, x):
        """[B, C, H, W] -> [B, D, h, w]."""
        return self.op(x)


OPS = {  # channels -> module
    "none": lambda c: None,
    "skip_connect": lambda c: nn.Identity(),
    "nor_conv_1x1": lambda c: Convolution(c, c, 1),
    "nor_conv_3x3": lambda c: Convolution(c, c, 3),
    "avg_pool_3x3": lambda c: nn.AvgPool2d(3, 1, padding=1, count_include_pad=False),
}


class Cell(nn.Module):
    """A cell."""

    def __init__(self, channels):
        super().__init__()
        self.layers = nn.ModuleList(OPS[op](channels) or nn.Identity() for op in EDGES)

    def forward(self, x):
        """[B, C, H, W] -> [B, C, H, W]."""
        nodes, edges = [x], iter(zip(self.layers, EDGES, strict=True))
        while len(nodes) * (len(nodes) - 1) // 2 < len(EDGES):
            into = [(source, *next(edges)) for source in nodes]
            nodes.append(sum((op(source) for source, op, name in into if name != "none"), torch.zeros_like(x)))
        return nodes[-1]


class Block(nn.Module):
    """A residual block that halves the image and doubles the channels."""

    def __init__(self, inputs):
        super().__init__()
        self.conv_a = Convolution(inputs, 2 * inputs, 3, stride=2)
        self.conv_b = Convolution(2 * inputs, 2 * inputs, 3)
        pool = nn.AvgPool2d(2, ceil_mode=True, count_include_pad=False)
        self.downsample = nn.Sequential(pool, nn.Conv2d(inputs, 2 * inputs, 1, bias=False))

    def forward(self, x):
        """[B, C, H, W] -> [B, 2 C, H / 2, W / 2], rounded up."""
        return self.conv_b(self.conv_a(x)) + self.downsample(x)


class Network(nn.Module):
    """The network, from pixels to logits."""

    def __init__(self):
        super().__init__()
        for name, values in (("mean", MEAN), ("std", STD)):
            self.register_buffer(name, torch.tensor(values).reshape(1, -1, 1, 1), persistent=False)
        c = CHANNELS
        self.stem = nn.Sequential(nn.Conv2d(len(MEAN), c, 3, padding=1, bias=False), nn.BatchNorm2d(c))
        self.cells = nn.ModuleList(Cell(c) for _ in range(CELLS))
        for c in (CHANNELS, 2 * CHANNELS):
            self.cells.append(Block(c))
            self.cells.extend(Cell(2 * c) for _ in range(CELLS))
        self.lastact = nn.Sequential(nn.BatchNorm2d(4 * CHANNELS), nn.ReLU())
        self.classifier = nn.Linear(4 * CHANNELS, len(CLASSES))

    def forward(self, pixels):
        """Computes logits f32[B, classes] from pixels 0 to 255, [B, channels, H, W] of any dtype."""
        x = self.stem((pixels.float() / 255 - self.mean) / self.std)
        for cell in self.cells:
            x = cell(x)
        return self.classifier(self.lastact(x).mean(dim=(2, 3)))


def load(weights=None):
    """Loads the network with weights from an .npz, by default the one beside this file, for testing. Call `train()` on
    the network to train it further."""
    network = Network()
    with np.load(weights or pathlib.Path(__file__).with_suffix(".npz")) as arrays:
        network.load_state_dict({name: torch.from_numpy(arrays[name]) for name in arrays})
    return network.eval()
