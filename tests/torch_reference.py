"""The oracle of test_torch_networks.py and test_torch_weights.py: the discrete networks in plain PyTorch.

Written after the papers: the cells, ops and networks of DARTS (Liu et al., ICLR 2019, section 3 and appendix) and
PR-DARTS (Zhou et al., NeurIPS 2020), and the factorised reduction, 7x1-1x7 convolution and auxiliary head of NASNet
(Zoph et al., CVPR 2018). The parameters bear the names that the released checkpoints have.
"""

import math

import numpy as np
import torch
from torch import nn


def normal(seed, *shape):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def size_of(form):
    """Of the images, in pixels."""
    return 32 if form == "cifar" else 224


def conv(inputs, outputs, size, *, stride=1, dilation=1, groups=1):
    """A convolution without bias whose output is as large as its input, divided by the stride and rounded up."""
    size = (size, size) if isinstance(size, int) else size
    padding = tuple(dilation * (k - 1) // 2 for k in size)
    return nn.Conv2d(
        inputs, outputs, size, stride=stride, padding=padding, dilation=dilation, groups=groups, bias=False
    )


def separable(width, size, stride, dilation=1):
    return (
        nn.ReLU(),
        conv(width, width, size, stride=stride, dilation=dilation, groups=width),
        conv(width, width, 1),
        nn.BatchNorm2d(width),
    )


class Chain(nn.Module):
    """Layers whose names start with `op`."""

    def __init__(self, *layers):
        super().__init__()
        self.op = nn.Sequential(*layers)

    def forward(self, x):
        return self.op(x)


class Halve(nn.Module):
    """Factorised reduction: half of the channels see the even pixels, the other half the odd ones."""

    def __init__(self, inputs, outputs):
        super().__init__()
        self.conv_1 = conv(inputs, outputs // 2, 1, stride=2)
        self.conv_2 = conv(inputs, outputs // 2, 1, stride=2)
        self.bn = nn.BatchNorm2d(outputs)

    def forward(self, x):
        x = torch.relu(x)
        return self.bn(torch.cat((self.conv_1(x), self.conv_2(x[..., 1:, 1:])), dim=1))


def resize(inputs, outputs):
    """How a cell brings an input to its own width."""
    return Chain(nn.ReLU(), conv(inputs, outputs, 1), nn.BatchNorm2d(outputs))


class Nothing(nn.Module):
    """Zeros: the op `none`."""

    def __init__(self, stride):
        super().__init__()
        self.stride = stride

    def forward(self, x):
        return torch.zeros_like(x[..., :: self.stride, :: self.stride])


def make_op(name, width, stride):
    """The op of a genotype's entry."""
    match name.split("_"):
        case ["none"]:
            return Nothing(stride)
        case ["skip", _]:
            return Halve(width, width) if stride == 2 else nn.Identity()
        case ["avg", "pool", _]:
            return nn.AvgPool2d(3, stride, padding=1, count_include_pad=False)
        case ["max", "pool", _]:
            return nn.MaxPool2d(3, stride, padding=1)
        case ["sep", "conv", size]:
            k = int(size[0])
            return Chain(*separable(width, k, stride), *separable(width, k, 1))
        case ["dil", "conv", size]:
            return Chain(*separable(width, int(size[0]), stride, dilation=2))
        case ["conv", "7x1", "1x7"]:
            row = conv(width, width, (1, 7), stride=(1, stride))
            column = conv(width, width, (7, 1), stride=(stride, 1))
            return nn.Sequential(nn.ReLU(), row, column, nn.BatchNorm2d(width))
    raise ValueError(name)


class Cell(nn.Module):
    def __init__(self, entries, concat, inputs, width, halve, reduction):
        super().__init__()
        self.preprocess0 = (Halve if halve else resize)(inputs[0], width)
        self.preprocess1 = resize(inputs[1], width)
        self._ops = nn.ModuleList(
            make_op(name, width, 2 if reduction and node in (0, 1) else 1) for name, node in entries
        )
        self.nodes = [node for _, node in entries]
        self.concat = concat

    def forward(self, before_last, last):
        states = [self.preprocess0(before_last), self.preprocess1(last)]
        for i in range(0, len(self.nodes), 2):
            states.append(sum(self._ops[j](states[self.nodes[j]]) for j in (i, i + 1)))
        return torch.cat([states[node] for node in self.concat], dim=1)


class AuxiliaryHead(nn.Module):
    def __init__(self, inputs, num_classes, pool_stride):
        super().__init__()
        pool = nn.AvgPool2d(5, pool_stride)
        first = (nn.Conv2d(inputs, 128, 1, bias=False), nn.BatchNorm2d(128), nn.ReLU())
        second = (nn.Conv2d(128, 768, 2, bias=False), nn.BatchNorm2d(768), nn.ReLU())
        self.features = nn.Sequential(nn.ReLU(), pool, *first, *second)
        self.classifier = nn.Linear(768, num_classes)

    def forward(self, x):
        return self.classifier(self.features(x).flatten(1))


class Network(nn.Module):
    """Logits and, in training with an auxiliary head, its logits, else None."""

    def __init__(self, genotype, form, width, cells, num_classes, auxiliary):
        super().__init__()
        self.form, self.auxiliary_cell = form, 2 * cells // 3
        if form == "cifar":
            inputs = (3 * width, 3 * width)
            self.stem = nn.Sequential(conv(3, 3 * width, 3), nn.BatchNorm2d(3 * width))
        else:
            inputs = (width, width)
            self.stem0 = nn.Sequential(
                conv(3, width // 2, 3, stride=2),
                nn.BatchNorm2d(width // 2),
                nn.ReLU(),
                conv(width // 2, width, 3, stride=2),
                nn.BatchNorm2d(width),
            )
            self.stem1 = nn.Sequential(nn.ReLU(), conv(width, width, 3, stride=2), nn.BatchNorm2d(width))
        self.cells = nn.ModuleList()
        halve = form == "imagenet"
        for k in range(cells):
            reduction = k in (cells // 3, self.auxiliary_cell)
            width *= 2 if reduction else 1
            kind = "reduce" if reduction else "normal"
            concat = getattr(genotype, f"{kind}_concat")
            self.cells.append(Cell(getattr(genotype, kind), concat, inputs, width, halve, reduction))
            inputs = (inputs[1], width * len(concat))
            halve = reduction
            if auxiliary and k == self.auxiliary_cell:
                head = AuxiliaryHead(inputs[1], num_classes, 3 if form == "cifar" else 2)
        if auxiliary:
            self.auxiliary_head = head
        self.classifier = nn.Linear(inputs[1], num_classes)

    def forward(self, x):
        if self.form == "cifar":
            before_last = last = self.stem(x)
        else:
            before_last = self.stem0(x)
            last = self.stem1(before_last)
        auxiliary = None
        for k, cell in enumerate(self.cells):
            before_last, last = last, cell(before_last, last)
            if k == self.auxiliary_cell and self.training and hasattr(self, "auxiliary_head"):
                auxiliary = self.auxiliary_head(last)
        return self.classifier(last.mean(dim=(2, 3))), auxiliary


def randomize(module, images, seed):
    """Draws everything a module has; its running statistics are of the size of what it computes from the images.

    Weights keep the size of the signal, so that neither logits nor gradients vanish in a deep network. Biases are
    mostly above 0: around 0 they would make 20 cells chaotic, PyTorch's own logits in float32 then being 1e-3 from
    those in float64 (and 1e-5 as it is).
    """
    torch.manual_seed(seed)
    norms = [m for m in module.modules() if isinstance(m, nn.BatchNorm2d)]
    with torch.no_grad():
        for parameter in module.parameters():
            if parameter.dim() > 1:
                nn.init.normal_(parameter, std=math.sqrt(2 / parameter[0].numel()))
            else:
                nn.init.normal_(parameter, mean=0.5, std=0.2)
        for norm in norms:
            nn.init.uniform_(norm.weight, 0.5, 1.5)
            norm.momentum = 1.0
        module.train()(images)
        for norm in norms:
            norm.running_mean += 0.1 * norm.running_var.sqrt() * torch.randn_like(norm.running_mean)
            norm.running_var *= torch.empty_like(norm.running_var).uniform_(0.8, 1.25)
            norm.momentum = 0.1
    return module
