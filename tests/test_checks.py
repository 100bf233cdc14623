# SPDX-License-Identifier: MIT
"""The judges are judged: right answers pass, known mistakes are named, empty frames are let be."""

# answers of readers are untyped
# mypy: ignore-errors
from __future__ import annotations

import copy
import inspect
import math

import pytest
import torch
import torch.nn.functional as F
from core_helpers import randomise, small_images, small_vit
from einops import rearrange
from torch import nn

import vitcore
from vitbook import checks
from vitbook.checks import CheckFailed
from vitcore import Attention, Block, DropPath, Mlp, PatchEmbed, ViT, augment, training
from vitcore.recipes import group_accuracy

P = inspect.Parameter


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


# -- chapter 7 ---------------------------------------------------------------------------------


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


RIGHT = {
    "check_patchify": [loops, unfolded, vitcore.patchify],
    "check_unpatchify": [join, vitcore.unpatchify],
    "check_round_trip": [loops],
    "check_num_tokens": [
        lambda h, w, p: (h // p) * (w // p),
        lambda h, w, p: torch.tensor(h * w // p**2),
    ],
    "check_token_index": [lambda row, column, grid: row * grid[1] + column],
    "check_patchify_test": [convolves, asserts_values],
    "check_pad_to_patches": [lambda x, p: F.pad(x, (0, -x.shape[3] % p, 0, -x.shape[2] % p))],
    "check_patch_embed": [embed, PatchEmbed(12, 4, 3, 6), PatchEmbed((8, 4), 4, 1, 6)],
    "check_sincos_1d": [sincos, vitcore.sincos_positions_1d],
    "check_sincos_2d": [sincos_grid, vitcore.sincos_positions_2d],
    "check_add_class_token": [front],
    "check_add_positions": [lambda tokens, table: tokens + table],
    "check_resize_positions": [resize, vitcore.resize_positions],
    "check_cosine_similarity": [cosine],
    "check_shift_matrix": [turn],
    "check_permute_table": [follow],
    "check_softmax_rows": [stable_softmax, lambda s: s.softmax(-1)],
    "check_attention_weights": [
        lambda q, k: (q @ k.mT / q.shape[-1] ** 0.5).softmax(-1),
        vitcore.attention.attention_weights,
    ],
    "check_scaled_attention": [
        attend, F.scaled_dot_product_attention, lambda q, k, v: (attend(q, k, v), q @ k.mT),
    ],
    "check_split_heads": [
        lambda x, h: x.reshape(*x.shape[:2], h, -1).transpose(1, 2),
    ],
    "check_merge_heads": [lambda x: x.transpose(1, 2).flatten(2)],
    "check_multi_head": [Attention, Attention(12, 2), Attention(12, 2, qkv_bias=False)],
    "check_attention_rows": [Attention(12, 2), Attention(12, 2, qkv_bias=False)],
    "check_independent_of_batch": [Attention(12, 2), Block(12, 2), lambda x: attend(x, x, x)],
    "check_attention_cost": [lambda n, dim, h: 4 * n * dim**2 + 2 * n * n * dim],
    "check_layer_norm": [norm, nn.LayerNorm(6, eps=1e-6)],
    "check_gelu": [gelu, F.gelu],
    "check_mlp": [Mlp(6, 8), Mlp(6, 24)],
    "check_layer_scale": [lambda x, gamma: x * gamma],
    "check_drop_path": [drop, DropPath],
    "check_drop_path_rates": [
        lambda r, n: [r * i / (n - 1) for i in range(n)], lambda r, n: torch.linspace(0, r, n),
    ],
    "check_residual": [lambda x, branch: x + branch(x), Block(12, 2)],
    "check_pre_norm": [Block(12, 2), Block(12, 2, layer_scale=1e-5)],
    "check_block": [Block(12, 2), Block(12, 2, layer_scale=1e-5, drop_path=0.5)],
    "check_mean_pool": [lambda x, prefix: x[:, prefix:].mean(1)],
    "check_parameter_count": [count],
    "check_crossover": [lambda dim: 6 * dim + 1],
    "check_normalise": [normalise],
    "check_cross_entropy": [
        F.cross_entropy,
        lambda x, y: (x.logsumexp(1) - x.gather(1, y[:, None])[:, 0]).mean(),
        lambda x, y: F.cross_entropy(x, y).item(),
    ],
    "check_accuracy": [accuracy, lambda batches: torch.tensor(accuracy(batches))],
    "check_confusion_matrix": [confusion],
    "check_split": [cut],
    "check_schedule": [
        rate,
        lambda step, total, warmup, lr, low: training.cosine_with_warmup(
            step, total_steps=total, warmup_steps=warmup, lr=lr, min_lr=low
        ),
    ],
    "check_draws_per_image": [flips, augment.build_augment("cifar"), lambda images, generator:
        augment.trivial_augment(images, generator=generator)],
    "check_mixup": [mixed, augment.mixup],
    "check_cutmix": [pasted, augment.cutmix],
    "check_erase": [erased, augment.erase],
    "check_group_accuracy": [grouped, group_accuracy],
    "check_average": [
        lambda old, new, decay: decay * old + (1 - decay) * new,
        lambda old, new, decay: torch.lerp(old, new, 1 - decay),
    ],
    "check_average_shares": [
        lambda d, n: [(1 - d) * d**k for k in range(n)],
        lambda d, n: (1 - d) * d ** torch.arange(n),
    ],
    "check_param_groups": [rule(matrix), training.param_groups],
    "check_orthogonalise": [newton_schulz, training.orthogonalise],
    "check_polar": [svd, lambda x: newton_schulz(x, 40, 1.5, -0.5, 0)],
}  # fmt: skip
# these judge a whole model
ON_MODELS = [
    "check_shapes", "check_permutation_equivariance", "check_positions_used",
    "check_class_token_position", "check_identity_at_zero", "check_final_norm", "check_readout",
    "check_initial_loss",
]  # fmt: skip
ALL_CHECKS = {name: value for name, value in vars(checks).items() if name.startswith("check_")
              }  # fmt: skip


@pytest.mark.parametrize(
    ("name", "answer"), [(name, answer) for name, answers in RIGHT.items() for answer in answers]
)
def test_right_answers_pass(name, answer, capsys):
    assert ALL_CHECKS[name](answer) is None
    said = capsys.readouterr().out
    assert said.startswith("check passed: ")
    assert said.count("\n") == 1
    assert len(said) < 110


@pytest.mark.parametrize("name", ON_MODELS)
def test_right_models_pass(name, capsys):
    assert ALL_CHECKS[name](small_vit()) is None
    assert capsys.readouterr().out.startswith("check passed: ")


def test_every_check_is_judged():
    assert set(ALL_CHECKS) == {*RIGHT, *ON_MODELS, "check_same_logits"}
    assert {name for name, *_ in WRONG} | {"check_residual", "check_shapes"} >= set(RIGHT)
    for check in ALL_CHECKS.values():
        assert check.__doc__
        assert check.__annotations__["return"] == "None"


def unsolved_raising(*arguments):
    raise NotImplementedError


class NoForward(nn.Module):
    """A module whose forward is still to be written."""

    qkv = proj = fc1 = fc2 = nn.Linear(6, 6)


EMPTY = {
    "raises": unsolved_raising,
    "returns nothing": lambda *arguments: None,
    "returns dots": lambda *arguments: ...,
    "dots": ...,
    "nothing": None,
}
ON_MODULES = ["check_multi_head", "check_attention_rows", "check_mlp", "check_pre_norm",
              "check_block"]  # fmt: skip
FRAMES = [
    (name, answer)
    for name in ALL_CHECKS
    for answer in EMPTY.values()
    if not callable(answer) or name not in {*ON_MODELS, *ON_MODULES}
]


@pytest.mark.parametrize(("name", "answer"), FRAMES)
def test_empty_frames_are_let_be(name, answer, capsys):
    if name == "check_same_logits":
        ALL_CHECKS[name](answer, answer, torch.zeros(1))
    else:
        assert ALL_CHECKS[name](answer) is None
    said = capsys.readouterr().out
    assert said.startswith("not solved yet")
    assert said.count("\n") == 1


@pytest.mark.parametrize("wrapper", [ViT, Attention, Block, Mlp])
def test_modules_without_a_forward_are_let_be(wrapper, capsys):
    made = {
        ViT: (small_vit, "check_initial_loss"),
        Attention: (lambda: Attention(6, 2), "check_multi_head"),
        Block: (lambda: Block(6, 2), "check_block"),
        Mlp: (lambda: Mlp(6, 6), "check_mlp"),
    }
    make, name = made[wrapper]
    empty = type("Empty", (wrapper,), {"forward": unsolved_raising})
    module = make()
    module.__class__ = empty
    ALL_CHECKS[name](module)
    assert capsys.readouterr().out.startswith("not solved yet")
    dots = type("Dots", (wrapper,), {"forward": lambda self, *arguments: ...})
    module.__class__ = dots
    ALL_CHECKS[name](module)
    assert capsys.readouterr().out.startswith("not solved yet")


def test_a_class_without_forward_is_let_be(capsys):
    class Empty(nn.Module):
        def __init__(self, dim, heads):
            super().__init__()
            self.heads, self.qkv, self.proj = heads, nn.Linear(dim, 3 * dim), nn.Linear(dim, dim)

    checks.check_multi_head(Empty)
    assert capsys.readouterr().out.startswith("not solved yet")


def alternate(table):
    return rearrange(table, "n (two half) -> n (half two)", two=2)


def patches(pattern, squares="b c (h p) (w q)"):
    return lambda images, size: rearrange(images, f"{squares} -> {pattern}", p=size, q=size)


def plain(images, size):
    batch, channels, height, width = images.shape
    return images.reshape(batch, height * width // size**2, channels * size**2)


def weights_of(score):
    return lambda q, k: score(q @ k.mT, q.shape[-1], q.shape[1] * q.shape[-1])


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


class NotRepeated:
    """An augmentation that counts its calls, so that the same generator gives other images."""

    calls = 0

    def __call__(self, images, generator):
        self.calls += 1
        return flips(images, generator) + self.calls


WRONG = [
    ("check_patchify", plain, "whole rows of the image"),
    ("check_patchify", lambda images, size: images.unfold(2, size, size).unfold(3, size, size)
        .reshape(len(images), -1, images.shape[1] * size**2), "one channel of several patches"),
    ("check_patchify", patches("b (h w) (p q c)"), r"order \(p1 p2 c\)"),
    ("check_patchify", patches("b (w h) (c p q)"), "column by column"),
    ("check_patchify", patches("b (h w) (c q p)"), "diagonal"),
    ("check_patchify", patches("b (h w) (c p q)", "b c (p h) (q w)"), "all over the image"),
    ("check_patchify", patches("b (c p q) (h w)"), "exchanged"),
    ("check_patchify", patches("b h w (c p q)"), "two axes"),
    ("check_patchify", patches("b (h w) c p q"), "three axes"),
    ("check_patchify", lambda images, size: images, "shape is .2, 3, 8, 12. where"),
    ("check_patchify", lambda images, size: 2 * unfolded(images, size), "values are not"),
    ("check_patchify", lambda images, size: unfolded(images, size) / 0, "not finite"),
    ("check_patchify", lambda images, size: unfolded(images, size).numpy(), "ndarray came back"),
    ("check_patchify", lambda images: images, "raised TypeError"),
    ("check_patchify", lambda images, size: images @ images.long(), "raised"),
    ("check_unpatchify", lambda t, p, s: t.reshape(len(t), -1, *s), "as they lie in memory"),
    ("check_unpatchify", lambda t, p, s: rearrange(
        t, "b (h w) (p q c) -> b c (h p) (w q)", h=s[0] // p, p=p, q=p), r"\(p1 p2 c\)"),
    ("check_unpatchify", lambda t, p, s: rearrange(
        t, "b (w h) (c p q) -> b c (h p) (w q)", h=s[0] // p, p=p, q=p), "column by column"),
    ("check_unpatchify", lambda t, p, s: rearrange(
        t, "b (h w) (c p q) -> b c (h q) (w p)", h=s[0] // p, p=p, q=p), "diagonal"),
    ("check_unpatchify", lambda t, p, s: rearrange(
        t, "b (h w) (c p q) -> b c (p h) (q w)", h=s[0] // p, p=p, q=p), "scattered"),
    ("check_unpatchify", lambda t, p, s: join(t, p, s).mT, "height and width"),
    ("check_round_trip", plain, "whole rows of the image"),
    ("check_round_trip", patches("b (w h) (c p q)"), "column by column"),
    ("check_round_trip", lambda i, p: unfolded(i, p).flip(1), "does not come back"),
    ("check_patchify_test", lambda f: True, "whole rows"),
    ("check_patchify_test", lambda f: f(torch.ones(1, 3, 4, 4), 2).shape == (1, 4, 12), "rows"),
    ("check_patchify_test", lambda f: grey_is_right(f), "one channel of several"),
    ("check_patchify_test", lambda f: False, "refuses a patchify that is right"),
    ("check_patchify_test", lambda f: f(torch.ones(1, 1, 4, 4), 2), "True or False"),
    ("check_patchify_test", lambda f: f(torch.ones(1, 1, 4, 4), 3), "raised ValueError"),
    ("check_pad_to_patches", lambda x, p: F.pad(x, (-x.shape[3] % p, 0, -x.shape[2] % p, 0)),
        "above and to the left"),
    ("check_pad_to_patches", lambda x, p: x[:, :, : x.shape[2] // p * p, : x.shape[3] // p * p],
        "cropped"),
    ("check_pad_to_patches", lambda x, p: F.pad(x, (0, p - x.shape[3] % p, 0, p - x.shape[2] % p)),
        "needs no zeros"),
    ("check_pad_to_patches", lambda x, p: F.pad(x, (0, x.shape[3] % p, 0, x.shape[2] % p)),
        "rest of the division"),
    ("check_pad_to_patches", lambda x, p: F.pad(x, (0, -x.shape[2] % p, 0, -x.shape[3] % p)),
        "exchanged"),
    ("check_pad_to_patches", lambda x, p: F.pad(x, (
        (-x.shape[3] % p) // 2, (-x.shape[3] % p + 1) // 2,
        (-x.shape[2] % p) // 2, (-x.shape[2] % p + 1) // 2)), "both sides"),
    ("check_num_tokens", lambda h, w, p: h // p, "one side"),
    ("check_num_tokens", lambda h, w, p: p * p, "pixels of a patch"),
    ("check_num_tokens", lambda h, w, p: h * w // p, "divided by P"),
    ("check_num_tokens", lambda h, w, p: (h // p) ** 2, "always square"),
    ("check_num_tokens", lambda h, w, p: (w // p) ** 2, "always square"),
    ("check_num_tokens", lambda h, w, p: h // p + w // p, "added"),
    ("check_num_tokens", lambda h, w, p: (h // p) * (w // p) + 1, "class token"),
    ("check_num_tokens", lambda h, w, p: (h / p) * (w / p), "float"),
    ("check_num_tokens", lambda h, w, p: 3, "your answer is 3"),
    ("check_num_tokens", lambda h, w, p: "16", "a number was expected"),
    ("check_num_tokens", lambda h, w, p: True, "a number was expected"),
    ("check_token_index", lambda r, c, grid: c * grid[0] + r, "down the columns"),
    ("check_token_index", lambda r, c, grid: r * grid[0] + c, "other side"),
    ("check_token_index", lambda r, c, grid: r * grid[1] + c + 1, "number 0"),
    ("check_patch_embed", lambda i, w, b: F.linear(plain(i, 4), w.flatten(1), b), "whole rows"),
    ("check_patch_embed", lambda i, w, b: F.linear(
        patches("b (h w) (p q c)")(i, 4), w.flatten(1), b), r"\(p1 p2 c\)"),
    ("check_patch_embed", lambda i, w, b: F.linear(unfolded(i, 4), w.flatten(1)), "bias"),
    ("check_patch_embed", lambda i, w, b: F.conv2d(i, w, b, stride=4).flatten(2), "exchanged"),
    ("check_patch_embed", lambda i, w, b: F.conv2d(i, w, b, stride=4), "two axes"),
    ("check_patch_embed", lambda i, w, b: F.conv2d(i, w, b).flatten(2).mT, "was expected"),
    ("check_patch_embed", patch_embed(lambda s, x: project(s, plain(x, 4))), "whole rows"),
    ("check_patch_embed", patch_embed(lambda s, x: (project(s, unfolded(x, 4)), (3, 2))), "grid"),
    ("check_patch_embed", nn.Linear(3, 3), "no .proj"),
    ("check_sincos_1d", lambda n, d: alternate(sincos(n, d)), "alternate"),
    ("check_sincos_1d", lambda n, d: sincos(n, d).roll(d // 2, 1), "cosines come first"),
    ("check_sincos_1d", lambda n, d: sincos(n, d, start=1), "start at 1"),
    ("check_sincos_1d", lambda n, d: sincos(n, d, base=100.0), "too slowly"),
    ("check_sincos_1d", lambda n, d: sincos(n, d, base=1e8), "too fast"),
    ("check_sincos_1d", lambda n, d: sincos(n, d, base=1e-4), "grow with the index"),
    ("check_sincos_1d", lambda n, d: sincos(n, d, base=1.0), "same speed"),
    ("check_sincos_1d", lambda n, d: sincos(n, d).T, "exchanged"),
    ("check_sincos_2d", lambda g, d: sincos_grid(g, d).roll(d // 2, 1), "row comes first"),
    ("check_sincos_2d", lambda g, d: rearrange(
        sincos_grid(g, d), "(h w) d -> (w h) d", h=g[0]), "column by column"),
    ("check_sincos_2d", lambda g, d: sincos(g[0] * g[1], d), "1-D table"),
    ("check_sincos_2d", lambda g, d: sincos_grid(g, d)[:, : d // 2].repeat(1, 2), "the column"),
    ("check_sincos_2d", lambda g, d: sincos_grid(g, d)[:, d // 2 :].repeat(1, 2), "the row"),
    ("check_sincos_2d", lambda g, d: sum(sincos_grid(g, d).chunk(2, 1)), "added"),
    ("check_sincos_2d", lambda g, d: torch.cat(
        [alternate(half) for half in sincos_grid(g, d).chunk(2, 1)], 1), "alternate"),
    ("check_sincos_2d", lambda g, d: sincos_grid(g, d).view(*g, d), "two axes"),
    ("check_add_class_token", lambda x, t: front(x, t).roll(-1, 1), "at the end"),
    ("check_add_class_token", lambda x, t: x + t, "added to every patch"),
    ("check_add_class_token", lambda x, t: front(x[:, 1:], t), "took the place"),
    ("check_add_class_token", lambda x, t: torch.cat([t.expand_as(x), x], 2), "channels"),
    ("check_add_class_token", lambda x, t: torch.cat([x, t.expand_as(x)], 2), "channels"),
    ("check_add_class_token", lambda x, t: torch.cat([t.expand(1, 5, 8), x]), "image of the"),
    ("check_add_class_token", lambda x, t: F.pad(x, (0, 0, 1, 0)), "empty token"),
    ("check_add_positions", lambda x, table: x + table[:, :1], "same row"),
    ("check_add_positions", lambda x, table: x + table[:, 3:4], "same row"),
    ("check_add_positions", lambda x, table: x + table.mean(1, keepdim=True), "same row"),
    ("check_add_positions", lambda x, table: torch.cat(
        [x[:, :1], x[:, 1:] + table[:, 1:]], 1), "class token gets no position"),
    ("check_add_positions", lambda x, table: torch.cat(
        [x[:, :1], x[:, 1:] + table[:, :-1]], 1), "shifted by one"),
    ("check_add_positions", lambda x, table: x, "not added"),
    ("check_add_positions", lambda x, table: x + table[0, :4, None], "images of the batch"),
    ("check_add_positions", lambda x, table: x * table, "multiplied"),
    ("check_add_positions", lambda x, table: torch.cat([x, table.expand_as(x)], 2), "joined"),
    ("check_add_positions", lambda x, table: torch.cat([x, table.expand_as(x)], 1), "joined"),
    ("check_add_positions", in_place, "changes tokens in place"),
    ("check_resize_positions", lambda *a: resize(*a, mode="bicubic", align_corners=True),
     "corners"),
    ("check_resize_positions", lambda *a: resize(*a, mode="bicubic"), "antialias"),
    ("check_resize_positions", lambda *a: resize(*a, mode="bilinear", antialias=True), "linear"),
    ("check_resize_positions", lambda *a: resize(*a, mode="bilinear"), "linear"),
    ("check_resize_positions", lambda *a: resize(*a, mode="nearest"), "nearest"),
    ("check_resize_positions", lambda t, old, new, k: torch.cat([t[:, :k], F.interpolate(
        t[:, k:].reshape(1, -1, *old), size=new, mode="bicubic", antialias=True)
        .permute(0, 2, 3, 1).flatten(1, 2)], 1), "reshaped there"),
    ("check_resize_positions", lambda t, old, new, k: resize(t, old, new[::-1], k), "new grid"),
    ("check_resize_positions", lambda t, old, new, k: resize(t, old[::-1], new, k), "old grid"),
    ("check_resize_positions", lambda t, old, new, k: resize(t, old, new, k)[:, k:], "is lost"),
    ("check_resize_positions", lambda *a: resize(*a).roll(-1, 1), "moved to the end"),
    ("check_resize_positions", lambda t, *a: t, "as it was"),
    ("check_cosine_similarity", lambda t: t @ t.T, "own lengths"),
    ("check_cosine_similarity", lambda t: F.normalize(t, dim=0) @ F.normalize(t, dim=0).T,
     "columns"),
    ("check_cosine_similarity", lambda t: cosine(t.T), "channels"),
    ("check_cosine_similarity", lambda t: t.T @ t, "channels"),
    ("check_cosine_similarity", lambda t: t @ t.T / t.norm(dim=1)[:, None], "one row's length"),
    ("check_cosine_similarity", lambda t: torch.cdist(t, t), "distances"),
    ("check_shift_matrix", lambda k, d: turn(k, d).T, "backwards"),
    ("check_shift_matrix", lambda k, d: torch.eye(d), "identity"),
    ("check_shift_matrix", lambda k, d: turn(k, d, sign=-1), "one sine with a minus"),
    ("check_shift_matrix", lambda k, d: alternate(alternate(turn(k, d)).T).T, "alternate"),
    ("check_shift_matrix", lambda k, d: turn(k + 1, d), "values are not"),
    ("check_shift_matrix", lambda k, d: turn(k, d)[: d // 2], "shape is"),
    ("check_shift_matrix", lambda k, d: 3, "tensor was expected"),
    ("check_permute_table", lambda t, o: follow(t, o.argsort()), "wrong way round"),
    ("check_permute_table", lambda t, o: torch.cat([t[:, :1], t[:, o]], 1), "off by one: row 0"),
    ("check_permute_table", lambda t, o: t[:, 1 + o], "row is lost"),
    ("check_permute_table", lambda t, o: t[:, o], "and the patches' rows"),
    ("check_permute_table", lambda t, o: torch.cat([t[:, 1 + o], t[:, :1]], 1), "to the end"),
    ("check_permute_table", lambda t, o: t, "as it was"),
    ("check_permute_table", lambda t, o: t.zero_(), "changes t in place"),
    ("check_softmax_rows", lambda s: s.softmax(-2), "columns sum to one"),
    ("check_softmax_rows", lambda s: s.flatten(2).softmax(2).view_as(s), "entries of a matrix"),
    ("check_softmax_rows", lambda s: s.exp() / s.exp().sum(), "entries of the tensor"),
    ("check_softmax_rows", lambda s: s.exp(), "divided by their sum"),
    ("check_softmax_rows", lambda s: s / s.sum(-1, keepdim=True), "without the exponential"),
    ("check_softmax_rows", lambda s: s.softmax(1), "heads"),
    ("check_softmax_rows", lambda s: s.exp() / s.exp().sum(-1, keepdim=True), "overflow"),
    ("check_softmax_rows", lambda s: s.clamp(-50, 50).softmax(-1), "large scores come out wrong"),
    ("check_attention_weights", weights_of(lambda s, d, D: s.softmax(-1)), "divided by anything"),
    ("check_attention_weights", weights_of(lambda s, d, D: (s / d).softmax(-1)), "by d itself"),
    ("check_attention_weights", weights_of(lambda s, d, D: (s / D).softmax(-1)), "by D"),
    ("check_attention_weights", weights_of(lambda s, d, D: (s / D**0.5).softmax(-1)), "root of D"),
    ("check_attention_weights", weights_of(lambda s, d, D: (s * d**0.5).softmax(-1)), "multiplied"),
    ("check_attention_weights", weights_of(lambda s, d, D: s.softmax(-1) / d**0.5), "after"),
    ("check_attention_weights", weights_of(lambda s, d, D: (s / d**0.5).softmax(-2)), "queries"),
    ("check_attention_weights", weights_of(lambda s, d, D: s.softmax(-2)), "and nothing is"),
    ("check_attention_weights", weights_of(lambda s, d, D: (s / d**0.5).mT.softmax(-1)), "roles"),
    ("check_attention_weights", weights_of(lambda s, d, D: s / d**0.5), "no softmax"),
    ("check_attention_weights", weights_of(lambda s, d, D: s), "no softmax"),
    ("check_attention_weights", weights_of(lambda s, d, D: (s / d**0.5).softmax(1)), "heads"),
    ("check_attention_weights", weights_of(lambda s, d, D: (s / d**0.5).softmax(0)), "batch"),
    ("check_scaled_attention", lambda q, k, v: attend(q, k, v, scale=1.0), "divided by anything"),
    ("check_scaled_attention", lambda q, k, v: attend(q, k, v, axis=-2), "queries"),
    ("check_scaled_attention", lambda q, k, v: attend(q, k, k), "to the keys"),
    ("check_scaled_attention", lambda q, k, v: attend(q, k, q), "to the queries"),
    ("check_scaled_attention", lambda q, k, v: v, "came back as they were"),
    ("check_scaled_attention", lambda q, k, v: (q @ k.mT / 4).softmax(-1), "values are not used"),
    ("check_scaled_attention", lambda q, k, v: (q @ k.mT / 4).softmax(-1).mT @ v, "transposed"),
    ("check_split_heads", lambda x, h: x.reshape(len(x), h, x.shape[1], -1), "lie in memory"),
    ("check_split_heads", lambda x, h: rearrange(x, "b n (d h) -> b h n d", h=h), "every third"),
    ("check_split_heads", lambda x, h: x.unflatten(2, (h, -1)), "in front of"),
    ("check_split_heads", lambda x, h: rearrange(x, "b n (h d) -> b h n d", d=h), "number of"),
    ("check_split_heads", lambda x, h: rearrange(x, "b n (h d) -> b h d n", h=h), "exchanged"),
    ("check_merge_heads", lambda x: x.reshape(x.shape[0], x.shape[2], -1), "mixes several tokens"),
    ("check_merge_heads", lambda x: rearrange(x, "b h n d -> b n (d h)"), "alternate"),
    ("check_merge_heads", lambda x: x.transpose(1, 2), "still apart"),
    ("check_merge_heads", lambda x: x.sum(1), "added"),
    ("check_merge_heads", lambda x: x.mean(1), "averaged"),
    ("check_attention_cost", lambda n, d, h: 3 * n * d * d + 2 * n * n * d, "output projection"),
    ("check_attention_cost", lambda n, d, h: 2 * n * d * d + 2 * n * n * d, "three maps, not one"),
    ("check_attention_cost", lambda n, d, h: 2 * n * n * d, "linear maps are missing"),
    ("check_attention_cost", lambda n, d, h: 4 * n * d * d + n * n * d, "only one is counted"),
    ("check_attention_cost", lambda n, d, h: 4 * n * d * d, "N by N products are missing"),
    ("check_attention_cost", lambda n, d, h: 4 * n * d * d + 2 * n * n * d * h, "d = D/h"),
    ("check_attention_cost", lambda n, d, h: 4 * n * d * d + 2 * n * n * d // h, "one head alone"),
    ("check_attention_cost", lambda n, d, h: 8 * n * d * d + 4 * n * n * d, "additions"),
    ("check_attention_cost", lambda n, d, h: 4.0 * n * d * d + 2 * n * n * d, "float"),
    ("check_attention_cost", lambda n, d, h: n * n, "not right"),
    ("check_multi_head", attention(scale=1.0), "divided by anything"),
    ("check_multi_head", attention(axis=-2), "queries"),
    ("check_multi_head", attention(merge="b n (d h)"), "alternate"),
    ("check_multi_head", attention("h three d"), "head by head"),
    ("check_multi_head", attention("three d h"), "every h-th"),
    ("check_multi_head", attention(order="kqv"), "exchanged their roles"),
    ("check_multi_head", attention(order="vkq"), "another order"),
    ("check_multi_head", attention(project=lambda self, x: x), "not projected"),
    ("check_multi_head", attention(project=lambda self, x: x @ self.proj.weight.T), "bias"),
    ("check_multi_head", with_forward(Attention(12, 2), lambda self, x: self.proj(
        attend(*self.qkv(x).chunk(3, -1)))), "one head"),
    ("check_multi_head", with_forward(Attention(12, 2), lambda self, x: Attention.forward(
        self, x.transpose(0, 1)).transpose(0, 1)), "across the batch"),
    ("check_multi_head", nn.MultiheadAttention(12, 2), "no .qkv and no .proj"),
    ("check_multi_head", with_forward(Mlp(4, 4), Mlp.forward), "no .qkv"),
    ("check_attention_rows", attention(axis=-2), "do not sum to one"),
    ("check_attention_rows", attention(axis=1), "do not sum to one"),
    ("check_independent_of_batch", lambda x: attend(*[x.transpose(0, 1)] * 3).transpose(0, 1),
     "other images"),
    ("check_independent_of_batch", lambda x: x - x.mean(0), "other images"),
    ("check_independent_of_batch", lambda x: x.transpose(0, 1), "first axis is the batch"),
    ("check_independent_of_batch", lambda x: 0 * x, "for every image"),
    ("check_layer_norm", lambda x, w, b: norm(x, w, b, inside=False), "inside the square root"),
    ("check_layer_norm", lambda x, w, b: norm(x, w, b, eps=1e-5), "1e-5"),
    ("check_layer_norm", lambda x, w, b: norm(x, w, b, eps=0), "no eps"),
    ("check_layer_norm", lambda x, w, b: norm(x, w, b, unbiased=True), "D - 1"),
    ("check_layer_norm", lambda x, w, b: norm(x, w, b, axes=(1, 2)), "all tokens of an image"),
    ("check_layer_norm", lambda x, w, b: norm(x, w, b, axes=(1,)), "over the tokens"),
    ("check_layer_norm", lambda x, w, b: norm(x, w, b, axes=(0,)), "over the batch"),
    ("check_layer_norm", lambda x, w, b: norm(x, w, b, axes=(0, 1)), "batch norm"),
    ("check_layer_norm", lambda x, w, b: norm(x, w, b, axes=(0, 1, 2)), "over everything"),
    ("check_layer_norm", lambda x, w, b: norm(x, 1, 0), "weight and the bias"),
    ("check_layer_norm", lambda x, w, b: norm(x, w, 0), "bias is not used"),
    ("check_layer_norm", lambda x, w, b: norm(x, 1, b), "weight is not used"),
    ("check_layer_norm", lambda x, w, b: (x - x.mean(-1, keepdim=True)) / (
        x.var(-1, unbiased=False, keepdim=True) + 1e-6) * w + b, "not by its root"),
    ("check_layer_norm", lambda x, w, b: x / (
        x.var(-1, unbiased=False, keepdim=True) + 1e-6).sqrt() * w + b, "not taken away"),
    ("check_layer_norm", lambda x, w, b: F.rms_norm(x, w.shape, w, 1e-6) + b, "not taken away"),
    ("check_layer_norm", nn.LayerNorm(6), "1e-5"),
    ("check_layer_norm", nn.RMSNorm(6), "no .bias"),
    ("check_gelu", lambda x: F.gelu(x, approximate="tanh"), "tanh"),
    ("check_gelu", torch.relu, "ReLU"),
    ("check_gelu", F.silu, "SiLU"),
    ("check_gelu", lambda x: x * (1.702 * x).sigmoid(), "sigmoid approximation"),
    ("check_gelu", lambda x: 0.5 * (1 + torch.erf(x / 2**0.5)), "without the factor"),
    ("check_gelu", lambda x: x * (-x * x / 2).exp() / (2 * math.pi) ** 0.5, "density"),
    ("check_gelu", lambda x: x * 0.5 * (1 + torch.erf(x)), "inside erf"),
    ("check_gelu", lambda x: x * (1 + torch.erf(x / 2**0.5)), "one half"),
    ("check_mlp", with_forward(Mlp(6, 8), lambda s, x: s.fc2(s.fc1(x))), "no activation"),
    ("check_mlp", with_forward(Mlp(6, 8), lambda s, x: s.fc2(s.fc1(x).relu())), "ReLU"),
    ("check_mlp", with_forward(Mlp(6, 8), lambda s, x: s.fc2(F.silu(s.fc1(x)))), "SiLU"),
    ("check_mlp", with_forward(Mlp(6, 8), lambda s, x: s.fc2(F.gelu(
        s.fc1(x), approximate="tanh"))), "tanh"),
    ("check_mlp", with_forward(Mlp(6, 8), lambda s, x: F.gelu(Mlp.forward(s, x))), "as well"),
    ("check_mlp", with_forward(Mlp(6, 8), lambda s, x: F.gelu(s.fc2(s.fc1(x)))), "comes after"),
    ("check_mlp", with_forward(Mlp(6, 8), lambda s, x: x + Mlp.forward(s, x)), "input is added"),
    ("check_layer_scale", lambda x, g: x * g[:, None], "to the tokens"),
    ("check_layer_scale", lambda x, g: x + g, "is a factor"),
    ("check_layer_scale", lambda x, g: x * g.mean(), "same factor"),
    ("check_layer_scale", lambda x, g: x + x * g, "block does that"),
    ("check_drop_path", lambda x, rate, training: F.dropout(x, rate, training), "dropout"),
    ("check_drop_path", lambda x, r, t: drop(x, r, True), "eval mode"),
    ("check_drop_path", lambda x, r, t: drop(x, r, t) * (1 - r * t), r"0\.\d+ times"),
    ("check_drop_path", lambda x, r, t: drop(x, r, t) / (1 - r * t), "mean is"),
    ("check_drop_path", lambda x, r, t: drop(x, 1 - r, t) if r else x, "share"),
    ("check_drop_path", lambda x, r, t: x, "nothing is dropped"),
    ("check_drop_path", lambda x, r, t: 0 * x if t and r else x, "everything is dropped"),
    ("check_drop_path", lambda x, r, t: drop(x, 0.1, True) if t else x, "rate of 0"),
    ("check_drop_path", lambda x, r, t: x[1:] if t and r else x, "went in"),
    ("check_drop_path", lambda x, r, t: x / 0 if t and r else x, "not finite"),
    ("check_drop_path", nn.Dropout, "dropout"),
    ("check_drop_path_rates", lambda r, n: [r] * n, "same rate"),
    ("check_drop_path_rates", lambda r, n: torch.linspace(r, 0, n), "fall with depth"),
    ("check_drop_path_rates", lambda r, n: [r * (i + 1) / n for i in range(n)], "first block"),
    ("check_drop_path_rates", lambda r, n: [r * i / n for i in range(n)], "last block"),
    ("check_residual", lambda x, branch: branch(x), "input is lost"),
    ("check_residual", lambda x, branch: x, "not used"),
    ("check_residual", lambda x, branch: x * branch(x), "multiplied"),
    ("check_residual", lambda x, branch: x + branch(branch(x)), "own result"),
    ("check_residual", lambda x, branch: branch(x + branch(x)), "after the addition"),
    ("check_residual", lambda x, branch: x - branch(x), "taken away"),
    ("check_residual", lambda x, branch: (x + branch(x)) / 2, "mean of both"),
    ("check_residual", block(post_norm), "post-norm"),
    ("check_residual", block(lambda s, x: s.mlp(s.norm2(s.attn(s.norm1(x))))), "no way past"),
    ("check_residual", block(lambda s, x: 2 * x + s.attn(s.norm1(x)) + s.mlp(s.norm2(x))),
     "should give back its input"),
    ("check_pre_norm", block(post_norm), "post-norm"),
    ("check_pre_norm", block(normed_residual), "post-norm"),
    ("check_pre_norm", block(lambda s, x: x + s.attn(s.norm1(x)) + s.mlp(x)), "grows with"),
    ("check_pre_norm", Mlp(4, 4), "no .norm1"),
    ("check_block", block(post_norm), "post-norm"),
    ("check_block", block(lambda s, x: (y := s.attn(s.norm1(x))) + s.mlp(s.norm2(y))),
     "around attention"),
    ("check_block", block(lambda s, x: second(s, x, lambda s, y: s.mlp(s.norm2(y)))),
     "around the MLP"),
    ("check_block", block(lambda s, x: s.mlp(s.norm2(s.attn(s.norm1(x))))), "both residuals"),
    ("check_block", block(half_normed_residual), "carries the normalised"),
    ("check_block", block(normed_residual), "carries the normalised"),
    ("check_block", block(lambda s, x: (y := x + s.attn(x)) + s.mlp(s.norm2(y))),
     "norm before attention"),
    ("check_block", block(lambda s, x: second(s, x, lambda s, y: y + s.mlp(y))),
     "norm before the MLP"),
    ("check_block", block(lambda s, x: (y := x + s.attn(x)) + s.mlp(y)), "no norm at all"),
    ("check_block", block(lambda s, x: x + s.attn(s.norm1(x)) + s.mlp(s.norm2(x))), "beside"),
    ("check_block", block(lambda s, x: second(s, x, lambda s, y: x + s.mlp(s.norm2(y)))),
     "starts from"),
    ("check_block", block(lambda s, x: second(s, x, lambda s, y: y + s.mlp(s.norm1(y)))),
     "used twice"),
    ("check_block", block(lambda s, x: (y := x + s.mlp(s.norm2(x))) + s.attn(s.norm1(y))),
     "MLP comes before"),
    ("check_block", block(lambda s, x: x + s.attn(s.norm1(x))), "only the attention half"),
    ("check_block", block(lambda s, x: x + s.mlp(s.norm2(x))), "only the MLP half"),
    ("check_mean_pool", lambda x, k: x.mean(1), "in the mean too"),
    ("check_mean_pool", lambda x, k: x[:, k + 1 :].mean(1), "one token too many"),
    ("check_mean_pool", lambda x, k: x[:, 0], "class token came back"),
    ("check_mean_pool", lambda x, k: x[:, k:].mean(2), "over the channels"),
    ("check_mean_pool", lambda x, k: x[:, k:].mean(0), "over the batch"),
    ("check_mean_pool", lambda x, k: x[:, k:].sum(1), "not averaged"),
    ("check_mean_pool", lambda x, k: x[:, k:].amax(1), "largest"),
    ("check_parameter_count", lambda c: count(c) - 2 * c.dim, "short by exactly the final norm"),
    ("check_parameter_count", lambda c: count(c) - c.depth * 3 * c.dim, "the biases of qkv"),
    ("check_parameter_count", lambda c: count(c) + 3 * c.depth * c.dim**2, "too much"),
    ("check_parameter_count", lambda c: 17, "which is not right"),
    ("check_crossover", lambda dim: 6 * dim, "both are equal"),
    ("check_crossover", lambda dim: 12 * dim + 1, "one of the two products"),
    ("check_crossover", lambda dim: 4 * dim + 1, "linear maps were not counted"),
    ("check_crossover", lambda dim: dim**2, "is not right"),
    ("check_normalise", lambda x, m, s: normalise(255 * x.float(), m, s), "range from 0 to 1"),
    ("check_normalise", lambda x, m, s: x / 255, "not used"),
    ("check_normalise", lambda x, m, s: normalise(x, m, (1, 1, 1)) * torch.tensor(s)[:, None, None],
     "multiplies"),
    ("check_normalise", lambda x, m, s: normalise(x, (0, 0, 0), s) - torch.tensor(m)[:, None, None],
     "after the division"),
    ("check_normalise", lambda x, m, s: normalise(x, (0, 0, 0), s), "not taken away"),
    ("check_normalise", lambda x, m, s: normalise(x, m, (1, 1, 1)), "does not divide"),
    ("check_normalise", lambda x, m, s: normalise(x.double() * 255 / 256, m, s), "256"),
    ("check_normalise", lambda x, m, s: normalise(x, (m[0],) * 3, (s[0],) * 3), "alike"),
    ("check_cross_entropy", lambda x, y: F.cross_entropy(x.softmax(1), y), "applied twice"),
    ("check_cross_entropy", lambda x, y: F.cross_entropy(x, y, reduction="sum"), "added"),
    ("check_cross_entropy", lambda x, y: F.cross_entropy(x, y, reduction="none"), "each image"),
    ("check_cross_entropy", lambda x, y: -F.cross_entropy(x, y), "sign"),
    ("check_cross_entropy", lambda x, y: F.nll_loss(x.softmax(1), y), "logarithm is missing"),
    ("check_cross_entropy", F.nll_loss, "softmax is missing"),
    ("check_cross_entropy", lambda x, y: F.cross_entropy(x, y) / 10, "over the classes"),
    ("check_cross_entropy", lambda x, y: F.nll_loss(x.log_softmax(0), y), "over the batch"),
    ("check_cross_entropy", lambda x, y: F.cross_entropy(x, y) / math.log(2), "base 2"),
    ("check_cross_entropy", lambda x, y: F.nll_loss(x.softmax(1).log(), y), "not finite"),
    ("check_accuracy", lambda b: sum(accuracy([x]) for x in b) / len(b), "averaged"),
    ("check_accuracy", lambda b: sum((x.argmax(1) == y).sum() for x, y in b), "number of right"),
    ("check_accuracy", lambda b: 1 - accuracy(b), "mistakes"),
    ("check_accuracy", lambda b: accuracy(b[-1:]), "last batch"),
    ("check_accuracy", lambda b: accuracy(b[:1]), "first batch"),
    ("check_accuracy", lambda b: 100 * accuracy(b), "percent"),
    ("check_accuracy", lambda b: 6 * accuracy(b), "number of batches"),
    ("check_confusion_matrix", lambda y, p, k: confusion(p, y, k), "exchanged"),
    ("check_confusion_matrix", lambda y, p, k: confusion(y, p, k).clamp(max=1), "how often"),
    ("check_confusion_matrix", lambda y, p, k: F.normalize(
        confusion(y, p, k).float(), p=1, dim=1), "counts are expected"),
    ("check_confusion_matrix", lambda y, p, k: confusion(y, p, 4), "does not occur"),
    ("check_confusion_matrix", lambda y, p, k: confusion(y, p, k).diag().diag(), "right answers"),
    ("check_split", lambda n, v, s: cut(n, v, s)[::-1], "training comes first"),
    ("check_split", lambda n, v, s: (torch.arange(n), cut(n, v, s)[1]), "still in the training"),
    ("check_split", lambda n, v, s: (torch.arange(n - v - 1), torch.arange(v)), "79 and 20"),
    ("check_split", lambda n, v, s: (torch.arange(n - v), torch.arange(v)), "both parts"),
    ("check_split", lambda n, v, s: (cut(n, v, s)[0], torch.full((v,), 1000)), "twice in one"),
    ("check_split", lambda n, v, s: (torch.arange(v, n), torch.arange(v)), "one end"),
    ("check_split", lambda n, v, s: torch.randperm(n).split([n - v, v]), "same seed"),
    ("check_split", lambda n, v, s: cut(n, v, 7), "seed is not used"),
    ("check_split", lambda n, v, s: (
        torch.manual_seed(s), torch.randperm(n).split([n - v, v]))[1], "whole program"),
    ("check_split", lambda n, v, s: torch.randperm(n), "two things"),
    ("check_schedule", lambda s, t, w, lr, low: rate(s - 1, t, w, lr, low), "rate 0"),
    ("check_schedule", lambda s, t, w, lr, low: lr * s / w if s < w
        else rate(s, t, w, lr, low), "rate 0"),
    ("check_schedule", lambda s, t, w, lr, low: rate(s - (s >= w) * (s > w), t, w, lr, low)
        if s != w else lr, "one step late"),
    ("check_schedule", lambda s, t, w, lr, low: rate(s, t, 0, lr, low), "no warmup"),
    ("check_schedule", lambda s, t, w, lr, low: rate(s, t, w if s < w else 0, lr, low),
        "counts from step 0"),
    ("check_schedule", lambda s, t, w, lr, low: rate(s, t, w, lr, 0), "ends at 0"),
    ("check_schedule", falls(lambda x, lr, low: low + lr * (1 + math.cos(math.pi * x)) / 2),
        "lifted"),
    ("check_schedule", falls(lambda x, lr, low: low + (lr - low) * math.cos(math.pi * x / 2)),
        "quarter"),
    ("check_schedule",
        falls(lambda x, lr, low: low + (lr - low) * (1 + math.cos(2 * math.pi * x)) / 2), "whole"),
    ("check_schedule", falls(lambda x, lr, low: lr + (low - lr) * x), "straight line"),
    ("check_schedule", lambda s, t, w, lr, low: lr, "first 8 rise"),
    ("check_draws_per_image", lambda x, g: flips(x, g, 1), "one draw for the whole batch"),
    ("check_draws_per_image", lambda x, g: x, "nothing is changed"),
    ("check_draws_per_image", lambda x, g: flips(x, None), "whole program"),
    ("check_draws_per_image", lambda x, g: x[:1], "shape they came in"),
    ("check_draws_per_image", blacken, "in place"),
    ("check_draws_per_image", lambda x, g: x + torch.rand(
        x.shape, generator=torch.Generator().manual_seed(torch.seed() % 99991)), "whole program"),
    ("check_draws_per_image", NotRepeated(), "second time"),
    ("check_mixup", lambda x, t, s: mixed(x, t, s, lambda s: 1 - s), "shares are exchanged"),
    ("check_mixup", lambda x, t, s: mixed(x, t, s, lambda s: s[:1].expand(6)), "of the first"),
    ("check_mixup", lambda x, t, s: mixed(x, t, s, by=-1), "one after it"),
    ("check_mixup", lambda x, t, s: mixed(x, t, s, lambda s: 0 * s + 1), "images are not mixed"),
    ("check_mixup", lambda x, t, s: (s.view(-1, 1, 1, 1) * x, t), "darkened"),
    ("check_mixup", lambda x, t, s: (x + x.roll(1, 0), t), "too bright"),
    ("check_mixup", lambda x, t, s: mixed(x, t, s, aims=lambda t, s: t), "targets are not mixed"),
    ("check_mixup", lambda x, t, s: mixed(x, t, s, aims=lambda t, s: blend(t, 1 - s)),
        "shares of the targets"),
    ("check_mixup", lambda x, t, s: mixed(x, t, s, aims=lambda t, s: blend(t, s, -1)),
        "targets are mixed with those after"),
    ("check_mixup", lambda x, t, s: mixed(x, t, s, aims=lambda t, s: blend(t, s[:1].expand(6))),
        "all targets"),
    ("check_mixup", lambda x, t, s: mixed(x, t, s, aims=lambda t, s: blend(t, 0 * s + 0.5)),
        "one half"),
    ("check_mixup", lambda x, t, s: blend(x, s), "two things"),
    ("check_cutmix", lambda x, t, b: pasted(x.mT, t, b)[0].mT, "two things"),
    ("check_cutmix", lambda x, t, b: (pasted(x.mT, t, b)[0].mT, t), "rows and columns"),
    ("check_cutmix", lambda x, t, b: pasted(x, t, b, lambda x, b: ~inside(x, b)), "around the box"),
    ("check_cutmix", lambda x, t, b: pasted(x, t, b, other=x.roll(-1, 0)), "image after"),
    ("check_cutmix", lambda x, t, b: pasted(x, t, b, other=torch.zeros(())), "box is empty"),
    ("check_cutmix", lambda x, t, b: (x, pasted(x, t, b)[1]), "nothing is pasted"),
    ("check_cutmix", lambda x, t, b: (pasted(x, t, b)[0], t), "targets are not shared"),
    ("check_cutmix", lambda x, t, b: pasted(x, t, b, part=lambda x, b: 1 - area(x, b)),
        "shares are exchanged"),
    ("check_cutmix", lambda x, t, b: (pasted(x, t, b)[0], blend(t, 1 - area(x, b), -1)),
        "those after"),
    ("check_cutmix", lambda x, t, b: pasted(x, t, b, part=lambda x, b: (b[:, 2] - b[:, 0]) / 8),
        "both sides count"),
    ("check_cutmix", lambda x, t, b: pasted(x, t, b, part=lambda x, b: 0.5 + 0 * b[:, 0]),
        "one half"),
    ("check_erase", lambda x, top, left, h, w: erased(x, left, top, w, h), "rows and columns"),
    ("check_erase", lambda x, top, left, h, w: erased(x, top, left, w, h), "height and width are"),
    ("check_erase", lambda x, *box: erased(x, *(v[:1].expand(3) for v in box)), "of the first"),
    ("check_erase", lambda x, *box: erased(x, *box, mask=lambda x, b: ~inside(x, b)), "is kept"),
    ("check_erase", lambda x, top, left, h, w: erased(x, top, left, h - top, w - left),
        "the bottom and"),
    ("check_erase", lambda x, top, left, h, w: erased(x, top, left, h + 1, w + 1), "too large"),
    ("check_erase", lambda x, *box: torch.cat([erased(x, *box)[:, :1], x[:, 1:]], 1),
        "first channel"),
    ("check_erase", lambda x, *box: x, "nothing is erased"),
    ("check_erase", blacken, "in place"),
    ("check_group_accuracy", lambda x, y, g: (x.argmax(1) == y).float().mean(), "right classes"),
    ("check_group_accuracy", lambda x, y, g: ((g[x.argmax(1)] == g[y])
        & (x.argmax(1) != y)).double().mean(), "only mistakes"),
    ("check_group_accuracy", lambda x, y, g: (x.argmax(1) == g[y]).double().mean(), "the number"),
    ("check_group_accuracy", lambda x, y, g: 11 * grouped(x, y, g), "number of right"),
    ("check_group_accuracy", lambda x, y, g: 1 - grouped(x, y, g), "share of mistakes"),
    ("check_average", lambda a, w, d: d * w + (1 - d) * a, "exchanged"),
    ("check_average", lambda a, w, d: d * a + w, "in full"),
    ("check_average", lambda a, w, d: a + (1 - d) * (a - w), "away"),
    ("check_average", lambda a, w, d: (a + w) / 2, "mean of both"),
    ("check_average", lambda a, w, d: a, "does not move"),
    ("check_average", lambda a, w, d: w, "take the place"),
    ("check_average_shares", lambda d, n: (1 - d) * d ** torch.arange(n).flip(0), "newest weights"),
    ("check_average_shares", lambda d, n: d ** torch.arange(n), "count 1"),
    ("check_average_shares", lambda d, n: (1 - d) * d ** torch.arange(1, n + 1), "by the decay"),
    ("check_average_shares", lambda d, n: torch.full((n,), 1 / n), "window"),
    ("check_average_shares", lambda d, n: (1 - d) * (1 - torch.arange(n) / n), "straight line"),
    ("check_average_shares", lambda d, n: d ** torch.arange(n) * (1 - d) / (1 - d**n),
        "scaled to sum"),
    ("check_param_groups", rule(lambda name, p: True), "it has three axes"),
    ("check_param_groups", rule(lambda name, p: p.ndim > 1), "pos_embed|cls_token"),
    ("check_param_groups", rule(lambda name, p: matrix(name, p) or "bias" in name), "or a gain"),
    ("check_param_groups", rule(lambda name, p: False), "does not decay"),
    ("check_param_groups", rule(lambda name, p: matrix(name, p) and p.ndim == 2), "or a kernel"),
    ("check_param_groups", lambda m, d: decaying(m, d, matrix)[:1], "in no group"),
    ("check_param_groups", lambda m, d: 2 * decaying(m, d, matrix), "two groups"),
    ("check_param_groups", lambda m, d: decaying(m, 2 * d, matrix), "0.05 was given"),
    ("check_param_groups", lambda m, d: m.parameters(), "list of dicts"),
    ("check_param_groups", lambda m, d: [{"params": list(m.named_parameters()),
        "weight_decay": d}], "without their names"),
    ("check_orthogonalise", lambda x, n: newton_schulz(x, n, scale=lambda x: 1), "runs away"),
    ("check_orthogonalise", lambda x, n: newton_schulz(x, n, scale=lambda x: x.abs().max()),
        "runs away"),
    ("check_orthogonalise", lambda x, n: svd(x), "exactly 1"),
    ("check_orthogonalise", lambda x, n: newton_schulz(x, 1), "one step"),
    ("check_orthogonalise", lambda x, n: newton_schulz(x, n - 1), "four steps"),
    ("check_orthogonalise", lambda x, n: x / x.norm(), "nothing is iterated"),
    ("check_orthogonalise", lambda x, n: newton_schulz(x, n, back=False), "never turned back"),
    ("check_orthogonalise", lambda x, n: newton_schulz(x, n, b=-4.5), "coefficients"),
    ("check_polar", lambda x: svd(x).T, "transposed"),
    ("check_polar", lambda x: svd(x)[:2], "the shape is"),
    ("check_polar", lambda x: newton_schulz(x, 40, 1.5, -0.5, 0, scale=lambda x: 1), "runs away"),
    ("check_polar", lambda x: newton_schulz(x, 2, 1.5, -0.5, 0), "the smallest has arrived"),
    ("check_polar", newton_schulz, "exact coefficients"),
    ("check_polar", lambda x: svd(x).flip(0), "vectors changed"),
    ("check_polar", lambda x: 1.0, "a tensor was expected"),
]  # fmt: skip


@pytest.mark.parametrize(("name", "answer", "words"), WRONG)
def test_wrong_answers_are_named(name, answer, words, capsys):
    with pytest.raises(CheckFailed, match=words) as caught:
        ALL_CHECKS[name](answer)
    assert capsys.readouterr().out == ""
    message = str(caught.value)
    assert "\n" not in message
    assert len(message) < 420


@pytest.mark.parametrize("name", ON_MODULES)
def test_a_function_is_no_module(name):
    with pytest.raises(TypeError, match="takes a module"):
        ALL_CHECKS[name](lambda x: x)


@pytest.mark.parametrize(
    ("name", "cls"),
    [("check_multi_head", Attention), ("check_attention_rows", Attention), ("check_mlp", Mlp),
     ("check_block", Block), ("check_pre_norm", Block)],
)  # fmt: skip
def test_classes_are_made(name, cls, capsys):
    ALL_CHECKS[name](cls)
    assert capsys.readouterr().out.startswith("check passed")


def test_the_linear_projection_of_a_reader():
    class Embed(nn.Module):
        def __init__(self, cut, size=None):
            super().__init__()
            self.proj, self.cut = nn.Linear(3 * 16, 6), cut
            if size:
                self.patch_size = size

        def forward(self, images):
            return self.proj(self.cut(images, 4))

    checks.check_patch_embed(Embed(unfolded), patch_size=4)
    checks.check_patch_embed(Embed(unfolded, 4), image_size=(12, 16))
    with pytest.raises(CheckFailed, match="whole rows"):
        checks.check_patch_embed(Embed(plain), patch_size=4)
    with pytest.raises(TypeError, match="pass patch_size"):
        checks.check_patch_embed(Embed(unfolded))


def test_resizing_without_prefix_tokens(capsys):
    checks.check_resize_positions(lambda table, old, new: resize(table, old, new), prefix_tokens=0)
    assert capsys.readouterr().out.startswith("check passed")
    with pytest.raises(CheckFailed, match="antialias"):
        checks.check_resize_positions(
            lambda table, old, new: resize(table, old, new, mode="bicubic"), prefix_tokens=0
        )


# -- models ------------------------------------------------------------------------------------


class ReadersViT(nn.Module):
    """A ViT as a reader would write it after chapter 5: no configuration, no captures."""

    def __init__(self, reads=0, positions=True, std=0.02, probabilities=False, twice=False):
        super().__init__()
        self.patch_embed = PatchEmbed((12, 16), 4, 3, 24)
        self.cls_token = nn.Parameter(std * torch.randn(1, 1, 24))
        self.pos_embed = nn.Parameter(std * torch.randn(1, 13, 24)) if positions else None
        self.blocks = nn.Sequential(Block(24, 3), Block(24, 3))
        self.norm = nn.LayerNorm(24, eps=1e-6)
        self.head = nn.Linear(24, 5)
        self.reads, self.probabilities, self.twice = reads, probabilities, twice
        for parameter in self.parameters():
            if parameter.ndim == 2:
                nn.init.normal_(parameter, std=std)

    def forward(self, images):
        x = front(self.patch_embed(images)[0], self.cls_token)
        if self.pos_embed is not None:
            x = x + self.pos_embed
        x = self.norm(self.blocks(x))
        if self.twice:
            x = self.norm(x)
        logits = self.head(x[:, self.reads] if isinstance(self.reads, int) else self.reads(x))
        return logits.softmax(1) if self.probabilities else logits


@pytest.mark.parametrize("name", [*ON_MODELS[1:], "check_independent_of_batch"])
def test_a_model_without_configuration(name, capsys):
    ALL_CHECKS[name](ReadersViT(), small_images(4))
    assert capsys.readouterr().out.startswith("check passed")
    with pytest.raises(TypeError, match="pass images"):
        ALL_CHECKS[name](ReadersViT())


def test_more_wrong_models():
    x = small_images(4)
    for reads, words in [
        (-1, "the last one"),
        (3, "reads token 3, meant is the class token"),
        (lambda x: x.mean(1), "reads all tokens"),
        (lambda x: x[:, 1:].mean(1), "reads 12 of 13 tokens"),
        (lambda x: 0 * x.detach()[:, 0], "nothing of what"),
    ]:
        with pytest.raises(CheckFailed, match=words):
            checks.check_readout(ReadersViT(reads), x)
    checks.check_readout(ReadersViT(lambda x: x[:, 1:].mean(1)), x, pool="mean")
    with pytest.raises(CheckFailed, match="without the 1 tokens"):
        checks.check_readout(ReadersViT(lambda x: x.mean(1)), x, pool="mean")
    with pytest.raises(CheckFailed, match="same share"):
        checks.check_readout(
            ReadersViT(lambda x: x[:, 1:7].mean(1) + 2 * x[:, 7:].mean(1)), x, pool="mean"
        )
    with pytest.raises(CheckFailed, match="not applied once"):
        checks.check_readout(ReadersViT(twice=True), x)
    with pytest.raises(CheckFailed, match="opinion"):
        checks.check_initial_loss(ReadersViT(std=1.0), x)
    with pytest.raises(CheckFailed, match="probabilities"):
        checks.check_initial_loss(ReadersViT(probabilities=True), x)
    with pytest.raises(CheckFailed, match=r"logits \(B, K\)"):
        checks.check_initial_loss(ReadersViT(lambda x: x), x)
    with pytest.raises(CheckFailed, match="something else happens"):
        checks.check_final_norm(ReadersViT(lambda x: 2 * x[:, 0]), x)
    with pytest.raises(CheckFailed, match="no table"):
        checks.check_positions_used(ReadersViT(positions=False), x)
    with pytest.raises(CheckFailed, match="must not matter"):
        checks.check_permutation_equivariance(ReadersViT(lambda x: x[:, 5]), x)
    without = ReadersViT()
    without.norm = nn.Identity()
    with pytest.raises(CheckFailed, match="there is no final norm"):
        checks.check_final_norm(without, x)


def test_positions_that_are_used_in_part():
    class Part(ViT):
        def positions_for(self, grid):
            return torch.cat([self.pos_embed[:, :9], self.pos_embed[:, :4]], 1)

    model = small_vit()
    model.__class__ = Part
    with pytest.raises(CheckFailed, match="4 of the 13 rows"):
        checks.check_positions_used(model)


def test_no_positions_found_by_their_rows():
    with pytest.raises(CheckFailed, match="not added"):
        checks.check_positions_used(checks.BUGS["no-positions"].plant(small_vit()))
    with pytest.raises(CheckFailed, match="gets no position"):
        checks.check_positions_used(checks.BUGS["class-token-without-position"].plant(small_vit()))


def test_wrong_shapes_are_found():
    class Wide(ViT):
        def pool(self, features):
            return features

    model = small_vit()
    model.__class__ = Wide
    with pytest.raises(CheckFailed, match="logits has shape"):
        checks.check_shapes(model)


def test_something_between_the_blocks():
    class Louder(ViT):
        def embed(self, images):
            x, layout = super().embed(images)
            return (x.abs() if len(self.blocks) else x), layout

    model = small_vit()
    model.__class__ = Louder
    with pytest.raises(CheckFailed, match="without blocks"):
        checks.check_identity_at_zero(model)


def test_same_logits():
    model, x = randomise(small_vit()), small_images()
    twin = copy.deepcopy(model)
    twin.train()
    checks.check_same_logits(model, twin, x)
    assert twin.training
    assert not model.training
    checks.check_same_logits(model, lambda images: model(images) + 1e-3, x, tolerance=1e-2)
    with pytest.raises(CheckFailed, match="are the weights the same"):
        checks.check_same_logits(model, small_vit(), x)
    with pytest.raises(CheckFailed, match="are the weights the same"):
        checks.check_same_logits(model, lambda images: model(images) + 1e-3, x)
    with pytest.raises(CheckFailed, match="shapes"):
        checks.check_same_logits(model, small_vit(num_classes=3), x)
    for module in twin.modules():
        if isinstance(module, nn.LayerNorm):
            module.eps = 1e-3
    with pytest.raises(CheckFailed, match="eps of the norms differs"):
        checks.check_same_logits(model, twin, x)
    twin = copy.deepcopy(model)
    for block in twin.blocks:
        block.mlp.act = nn.GELU(approximate="tanh")
    with pytest.raises(CheckFailed, match="kind of GELU differs"):
        checks.check_same_logits(model, twin, x)


# -- manners -----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["check_multi_head", *ON_MODELS, "check_block", "check_mlp"])
def test_checks_leave_the_model_and_the_random_state_alone(name):
    model = randomise(small_vit(drop_path=0.1)).train()
    model = small_vit(drop_path=0.1).train() if name == "check_initial_loss" else model
    weights = copy.deepcopy(model.state_dict())
    state = torch.random.get_rng_state()
    ALL_CHECKS[name](model)
    assert torch.equal(torch.random.get_rng_state(), state)
    assert model.training
    for key, value in model.state_dict().items():
        assert torch.equal(value, weights[key])
    assert all(parameter.grad is None for parameter in model.parameters())


def test_checks_say_the_same_every_time():
    messages = set()
    for seed in range(3):
        torch.manual_seed(seed)
        with pytest.raises(CheckFailed) as caught:
            checks.check_scaled_attention(lambda q, k, v: 1.1 * attend(q, k, v))
        messages.add(str(caught.value))
    assert len(messages) == 1


def test_a_failed_check_is_an_assertion():
    assert issubclass(CheckFailed, AssertionError)


def test_what_is_not_callable_is_refused():
    with pytest.raises(TypeError, match="without calling it"):
        checks.check_patchify(torch.zeros(3))


def test_an_error_of_torch_about_a_type_is_not_an_empty_frame():
    def answer(x):
        raise NotImplementedError("\"erf\" not implemented for 'Long'")

    with pytest.raises(CheckFailed, match="not implemented for"):
        checks.check_gelu(answer)


def test_an_assertion_of_the_reader_is_passed_on():
    def answer(images, size):
        raise CheckFailed("mine")

    with pytest.raises(CheckFailed, match="mine"):
        checks.check_patchify(answer)


def test_errors_tell_what_was_given():
    def answer(images, size):
        return images.reshape(3, 5)

    with pytest.raises(CheckFailed, match=r"raised RuntimeError.*shape \(2, 3, 8, 12\), 4"):
        checks.check_patchify(answer)


def test_models_in_half_precision_are_judged_in_single():
    checks.check_multi_head(Attention(12, 2).bfloat16())
    checks.check_readout(small_vit().bfloat16())


def test_the_names_of_parts_are_asked_for():
    class Other(nn.Module):
        def __init__(self):
            super().__init__()
            self.qkv, self.proj = nn.Linear(12, 36), nn.Linear(12, 12)

    with pytest.raises(CheckFailed, match=r"no \.heads"):
        checks.check_multi_head(Other())

    class Counted(Attention):
        @property
        def num_heads(self):
            return self.heads

    checks.check_multi_head(Counted(12, 2))
