# SPDX-License-Identifier: MIT
"""Right answers that a reader might give, as functions with which the tests make wrong ones.

No code of vitcore judges vitcore here: these are written anew, from the formulas of the chapters.
"""

# answers of readers are untyped
# mypy: ignore-errors
from __future__ import annotations

import copy
import math

import torch
import torch.nn.functional as F
from einops import rearrange

import vitcore
from vitcore import Attention, Block, PatchEmbed


def unfolded(images, size):
    return F.unfold(images, size, stride=size).transpose(1, 2)


def attend(q, k, v, scale=None, axis=-1):
    scale = scale or q.shape[-1] ** -0.5
    return (scale * q @ k.transpose(-2, -1)).softmax(axis) @ v


def loops(images, size):
    out = []
    for image in images:
        rows = []
        for y in range(0, image.shape[1], size):
            for x in range(0, image.shape[2], size):
                rows.append(image[:, y : y + size, x : x + size].reshape(-1))
        out.append(torch.stack(rows))
    return torch.stack(out)


def sincos(length, dim, base=10000.0, start=0):
    place = torch.arange(start, length + start).float()
    angles = torch.outer(place, base ** (-torch.arange(dim // 2) / (dim / 2)))
    return torch.cat([angles.sin(), angles.cos()], 1)


def sincos_grid(grid, dim):
    rows, columns = grid
    across = sincos(columns, dim // 2)[None].expand(rows, -1, -1)
    down = sincos(rows, dim // 2)[:, None].expand(-1, columns, -1)
    return torch.cat([across, down], 2).flatten(0, 1)


def join(tokens, size, image_size):
    return rearrange(
        tokens, "b (h w) (c p q) -> b c (h p) (w q)", h=image_size[0] // size, p=size, q=size
    )


def norm(x, weight, bias, eps=1e-6, inside=True, unbiased=False, axes=(-1,)):
    centred = x - x.mean(axes, keepdim=True)
    variance = x.var(axes, unbiased=unbiased, keepdim=True)
    root = (variance + eps).sqrt() if inside else variance.sqrt() + eps
    return centred / root * weight + bias


def gelu(x):
    return x * 0.5 * (1 + torch.erf(x / math.sqrt(2)))


def drop(x, rate, training):
    if not training or rate == 0:
        return x
    return x * (torch.rand(x.shape[0], 1, 1) > rate) / (1 - rate)


def stable_softmax(scores):
    powers = (scores - scores.amax(-1, keepdim=True)).exp()
    return powers / powers.sum(-1, keepdim=True)


def front(tokens, token):
    return torch.cat([token.expand(len(tokens), -1, -1), tokens], 1)


def count(config):
    height, width = vitcore.patches.to_pair(config.image_size)
    d, hidden = config.dim, int(config.dim * config.mlp_ratio)
    tokens = height // config.patch_size * (width // config.patch_size) + 1
    block = 2 * 2 * d + (3 * d * d + 3 * d) + (d * d + d) + (d * hidden + hidden) + (hidden * d + d)
    embedding = config.in_channels * config.patch_size**2 * d + d
    return embedding + d + tokens * d + config.depth * block + 2 * d + d * config.num_classes \
        + config.num_classes  # fmt: skip


def cut(total, validation, seed):
    order = torch.randperm(total, generator=torch.Generator().manual_seed(seed))
    return order[validation:], order[:validation]


def accuracy(batches):
    right = sum((logits.argmax(1) == labels).sum().item() for logits, labels in batches)
    return right / sum(len(labels) for _, labels in batches)


def confusion(labels, said, classes):
    return torch.bincount(classes * labels + said, minlength=classes**2).view(classes, classes)


def normalise(images, mean, std):
    m, s = (torch.tensor(x).view(1, -1, 1, 1) for x in (mean, std))
    return (images / 255 - m) / s


def resize(table, old, new, prefix=0, **how):
    how = how or {"mode": "bicubic", "antialias": True}
    grid = table[:, prefix:].reshape(1, *old, -1).permute(0, 3, 1, 2)
    grid = F.interpolate(grid, size=new, **how).permute(0, 2, 3, 1).flatten(1, 2)
    return torch.cat([table[:, :prefix], grid], 1)


def embed(images, weight, bias):
    return F.linear(unfolded(images, weight.shape[-1]), weight.flatten(1), bias)


def cosine(table):
    unit = table / table.norm(dim=1, keepdim=True)
    return unit @ unit.T


def turn(steps, dim, sign=1):
    angles = steps / 10000 ** (torch.arange(dim // 2) / (dim // 2))
    sin, cos = torch.diag(angles.sin()), torch.diag(angles.cos())
    return torch.cat([torch.cat([cos, sin], 1), torch.cat([-sign * sin, cos], 1)])


def convolves(patchify):
    images = torch.randn(2, 3, 8, 12)
    weight = torch.eye(48).view(48, 3, 4, 4)
    return torch.equal(patchify(images, 4), F.conv2d(images, weight, stride=4).flatten(2).mT)


def asserts_values(patchify):
    images = torch.arange(2 * 4 * 6.0).view(1, 2, 4, 6)
    assert patchify(images, 2)[0, 4].tolist() == [14, 15, 20, 21, 38, 39, 44, 45]
    return True


def follow(table, order):
    return torch.cat([table[:, :1], table[:, 1 + order]], dim=1)


def rate(step, total, warmup, lr, low, fall=None):
    if step < warmup:
        return lr * (step + 1) / warmup
    done = (step - warmup + 1) / (total - warmup)
    return fall(done) if fall else low + (lr - low) * (1 + math.cos(math.pi * done)) / 2


def falls(shape):
    """A schedule that is right in the warmup and falls by ``shape(done, lr, low)`` behind it."""
    return lambda s, t, w, lr, low: rate(s, t, w, lr, low, lambda done: shape(done, lr, low))


def flips(images, generator, count=None):
    which = torch.rand(count or len(images), generator=generator) < 0.5
    return torch.where(which.view(-1, 1, 1, 1), images.flip(-1), images)


def blend(x, share, by=1):
    share = share.view(-1, *[1] * (x.ndim - 1))
    return share * x + (1 - share) * x.roll(by, 0)


def mixed(images, targets, share, other=None, by=1, aims=None):
    """mixup, with another share or partner for the images, another rule for the targets."""
    aims = aims or (lambda targets, share: blend(targets, share))
    return blend(images, share if other is None else other(share), by), aims(targets, share)


def inside(images, box):
    rows, columns = torch.arange(images.shape[2]), torch.arange(images.shape[3])
    top, left, bottom, right = box.T[:, :, None, None]
    down = (rows[:, None] >= top) & (rows[:, None] < bottom)
    return (down & (columns >= left) & (columns < right))[:, None]


def area(images, box):
    return (box[:, 2] - box[:, 0]) * (box[:, 3] - box[:, 1]) / images[0, 0].numel()


def pasted(images, targets, box, mask=inside, part=area, other=None):
    """CutMix, with another mask, share or content of the box."""
    other = images.roll(1, 0) if other is None else other
    return torch.where(mask(images, box), other, images), blend(targets, 1 - part(images, box))


def erased(images, top, left, height, width, mask=inside):
    box = torch.stack([top, left, top + height, left + width], 1)
    return images.masked_fill(mask(images, box), 0)


def grouped(logits, labels, group_of):
    return (group_of[logits.argmax(1)] == group_of[labels]).double().mean().item()


def newton_schulz(x, steps=5, a=3.4445, b=-4.7750, c=2.0315, scale=torch.norm, back=True):
    tall = len(x) > x.shape[1]
    x = x.T / scale(x) if tall else x / scale(x)
    for _ in range(steps):
        gram = x @ x.T
        x = a * x + (b * gram + c * gram @ gram) @ x
    return x.T if tall and back else x


def decaying(model, weight_decay, keep=lambda name, p: p.ndim > 1 and "blocks" in name):
    chosen = {True: [], False: []}
    for name, parameter in model.named_parameters():
        chosen[keep(name, parameter)].append(parameter)
    return [
        {"params": chosen[True], "weight_decay": weight_decay},
        {"params": chosen[False], "weight_decay": 0.0},
    ]


def matrix(name, parameter):
    return parameter.ndim > 1 and name not in ("pos_embed", "cls_token", "reg_token")


def rule(keep):
    return lambda model, decay: decaying(model, decay, keep)


def blacken(images, *arguments):
    images[:] = 0
    return images


def svd(x):
    u, _, v = torch.linalg.svd(x, full_matrices=False)
    return u @ v


def alternate(table):
    return rearrange(table, "n (two half) -> n (half two)", two=2)


def patches(pattern, squares="b c (h p) (w q)"):
    return lambda images, size: rearrange(images, f"{squares} -> {pattern}", p=size, q=size)


def plain(images, size):
    batch, channels, height, width = images.shape
    return images.reshape(batch, height * width // size**2, channels * size**2)


def in_place(tokens, table):
    tokens += table
    return tokens


def with_forward(module, forward):
    module = copy.deepcopy(module)
    module.__class__ = type("Answer", (type(module),), {"forward": forward})
    return module


def attention(pattern="three h d", merge="b n (h d)", project=True, order="qkv", **how):
    """A reader's attention with some mistakes."""

    def forward(self, x, layout=None, record=None):
        parts = rearrange(self.qkv(x), f"b n ({pattern}) -> three b h n d", three=3, h=self.heads)
        q, k, v = (parts["qkv".index(letter)] for letter in order)
        mixed = rearrange(attend(q, k, v, **how), f"b h n d -> {merge}")
        return self.proj(mixed) if project is True else project(self, mixed)

    return with_forward(Attention(12, 2), forward)


def block(forward):
    return with_forward(Block(12, 2), lambda self, x, *rest: forward(self, x))


def post_norm(self, x):
    x = self.norm1(x + self.attn(x))
    return self.norm2(x + self.mlp(x))


def normed_residual(self, x):
    x = self.norm1(x)
    x = x + self.attn(x)
    x = self.norm2(x)
    return x + self.mlp(x)


def half_normed_residual(self, x):
    x = self.norm1(x)
    x = x + self.attn(x)
    return x + self.mlp(self.norm2(x))


def second(self, x, residual):
    x = x + self.attn(self.norm1(x))
    return residual(self, x)


def grey_is_right(patchify):
    images = torch.randn(2, 1, 8, 12)
    return torch.equal(patchify(images, 4), unfolded(images, 4))


def patch_embed(forward):
    return with_forward(PatchEmbed((8, 12), 4, 3, 6), forward)


def project(self, tokens):
    return F.linear(tokens, self.proj.weight.flatten(1), self.proj.bias)
