# SPDX-License-Identifier: MIT
"""What only a CUDA device can show: python -m tools.gpu_check [--epochs N].

Needs torch, torchvision, timm and einops, and no network: without a folder of real images it trains
on drawn ones and says so. Each check is independent; one that fails does not stop the rest. Where
there is no CUDA device the script says so in one sentence and succeeds.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F

from vitcore import ViT, create_model
from vitcore.attention import Attention

Check = Callable[[], str]


def small(**changes: object) -> ViT:
    """A model of the size of the book's MNIST model, the same at every call."""
    torch.manual_seed(0)
    return create_model("vit_mnist", **changes).cuda()


def images(count: int = 64) -> torch.Tensor:
    """Random images for it, the same at every call."""
    return torch.randn(count, 1, 28, 28, generator=torch.Generator().manual_seed(0)).cuda()


def worst(a: torch.Tensor, b: torch.Tensor) -> float:
    """The largest difference between two tensors."""
    return (a.float() - b.float()).abs().max().item()


def require(condition: bool, words: str) -> str:
    """Return ``words`` if all is well, else raise them."""
    if not condition:
        raise AssertionError(words)
    return words


def device_is_used() -> str:
    """The model computes on the device what it computes on the processor."""
    torch.backends.cuda.matmul.allow_tf32 = False
    torch.backends.cudnn.allow_tf32 = False
    model = small().eval()
    with torch.no_grad():
        there = model(images())
        here = model.cpu()(images().cpu())
    gap = worst(there.cpu(), here)
    return require(there.is_cuda and gap < 1e-4, f"logits differ from the processor's by {gap:.1e}")


def kernels_agree(dtype: torch.dtype, limit: float) -> str:
    """Fused and written-out attention agree, forward and backward, and so do the weights."""
    torch.manual_seed(0)
    fused = Attention(192, 3, kernel="fused").cuda().to(dtype)
    explicit = Attention(192, 3, kernel="explicit").cuda().to(dtype)
    explicit.load_state_dict(fused.state_dict())
    x = torch.randn(8, 197, 192, device="cuda", dtype=dtype)
    xs = [x.clone().requires_grad_(), x.clone().requires_grad_()]
    outs = [module(part) for module, part in zip((fused, explicit), xs, strict=True)]
    for out in outs:
        out.float().square().sum().backward()
    gradients = [part.grad for part in xs if part.grad is not None]
    forward = worst(outs[0], outs[1]) / outs[1].float().abs().max().item()
    backward = worst(gradients[0], gradients[1]) / gradients[1].float().abs().max().item()
    rows = fused.weights(x).float().sum(dim=-1)
    off = (rows - 1).abs().max().item()
    words = (
        f"relative gap forward {forward:.1e}, backward {backward:.1e}; rows sum to 1 +- {off:.0e}"
    )
    return require(max(forward, backward) < limit and off < 10 * limit, words)


def auto_is_fused() -> str:
    """On a GPU the default kernel is the fused one, in bf16 too, as it is the faster one."""
    times = {}
    for kernel in ("auto", "fused", "explicit"):
        module = Attention(384, 6, kernel=kernel).cuda().bfloat16()
        x = torch.randn(64, 197, 384, device="cuda", dtype=torch.bfloat16)
        for _ in range(5):
            module(x)
        torch.cuda.synchronize()
        start = time.perf_counter()
        for _ in range(20):
            module(x)
        torch.cuda.synchronize()
        times[kernel] = (time.perf_counter() - start) / 20 * 1e3
    words = ", ".join(f"{kernel} {value:.2f} ms" for kernel, value in times.items())
    return require(times["auto"] < 1.3 * min(times["fused"], times["explicit"]), words)


def loss_falls(dtype: torch.dtype | None, scale: bool = False, compiled: bool = False) -> str:
    """Thirty steps on one batch bring the loss down, and every value stays finite."""
    plain = small()
    model: Any = torch.compile(plain) if compiled else plain
    x, y = images(), torch.arange(64).cuda() % 10
    optimizer = torch.optim.AdamW(plain.parameters(), lr=3e-3)
    scaler = torch.amp.GradScaler("cuda", enabled=scale)
    losses = []
    for _ in range(30):
        with torch.autocast("cuda", dtype=dtype or torch.float32, enabled=dtype is not None):
            loss = F.cross_entropy(model(x), y)
        optimizer.zero_grad()
        scaler.scale(loss).backward()
        scaler.step(optimizer)
        scaler.update()
        losses.append(loss.item())
    words = f"loss {losses[0]:.3f} to {losses[-1]:.3f} in {len(losses)} steps"
    return require(losses[-1] < 0.8 * losses[0], words)


def compile_works() -> str:
    """torch.compile gives the same logits, and trains."""
    model = small().eval()
    with torch.no_grad():
        plain = model(images())
        gap = worst(torch.compile(model)(images()), plain)
    told = loss_falls(torch.bfloat16, compiled=True)
    return require(gap < 1e-3, f"logits differ by {gap:.1e}; {told}")


def timm_parity() -> str:
    """The same weights give timm's logits on the device."""
    from vitbook.torchvision import import_torchvision

    import_torchvision()  # timm imports it, also where its compiled half does not fit torch
    import timm

    torch.backends.cuda.matmul.allow_tf32 = False
    torch.backends.cudnn.allow_tf32 = False
    theirs = timm.create_model("vit_small_patch16_224", pretrained=False).cuda().eval()
    ours = create_model("vit_small_patch16_224").cuda().eval()
    ours.load_state_dict(theirs.state_dict())
    x = torch.randn(4, 3, 224, 224, generator=torch.Generator().manual_seed(0)).cuda()
    with torch.no_grad():
        gap = worst(ours(x), theirs(x))
    return require(gap < 1e-4, f"logits differ by {gap:.1e}")


def one_epoch(epochs: int, precision: str) -> str:
    """The book's own loop trains on the device, with its own data and augmentation."""
    from vitcore.data import load_dataset
    from vitcore.recipes import get_recipe
    from vitcore.runs import train_recipe

    data = load_dataset("mnist", stand_in=True)
    recipe = get_recipe("mnist").with_train(epochs=epochs, precision=precision)
    with tempfile.TemporaryDirectory() as out:
        run = train_recipe(recipe, data, device="cuda", out=Path(out), progress=False)
    words = (
        f"{data.source}: {epochs} epoch(s) in {run.history.seconds:.1f} s, "
        f"test accuracy {run.test['accuracy']:.4f}"
    )
    return require(run.device.type == "cuda" and run.test["accuracy"] > 0.85, words)


def augmentation_stays_on_the_device() -> str:
    """Batches and their augmentation are made on the device and repeat from seed and epoch."""
    from vitcore.augment import build_augment
    from vitcore.data import Batches, load_dataset

    data = load_dataset("mnist", stand_in=True).subset(512, 64, 64)
    batches = Batches(
        data.train,
        64,
        mean=data.mean,
        std=data.std,
        shuffle=True,
        augment=build_augment("digits"),
        device="cuda",
    )
    batches.set_epoch(1)
    first = next(iter(batches))
    batches.set_epoch(1)
    again = next(iter(batches))
    same = torch.equal(first[0], again[0]) and torch.equal(first[1], again[1])
    return require(first[0].is_cuda and same, "an epoch's first batch, made twice, is the same")


def recipe_of_the_gpu() -> str:
    """Stem, augmentation, mixing, Muon, moving average and compile, as the recipe has them."""
    from vitcore.data import load_dataset
    from vitcore.recipes import get_recipe
    from vitcore.runs import train_recipe

    data = load_dataset("cifar100", stand_in=True).subset(4096, 512, 512)
    recipe = get_recipe("cifar100", "gpu").with_train(epochs=3, warmup_epochs=1.0)
    with tempfile.TemporaryDirectory() as out:
        run = train_recipe(recipe, data, device="cuda", out=Path(out), progress=False)
    first, *_, last = run.history
    rate = recipe.train.batch_size * (4096 // recipe.train.batch_size) / last["train_seconds"]
    words = (
        f"loss {first['train_loss']:.2f} to {last['train_loss']:.2f}; the last epoch went at "
        f"{rate:.0f} images a second"
    )
    return require(last["train_loss"] < first["train_loss"], words)


def checks(epochs: int) -> dict[str, Check]:
    """All checks by name."""
    found: dict[str, Check] = {
        "device": device_is_used,
        "attention fp32": lambda: kernels_agree(torch.float32, 1e-4),
        "attention fp16": lambda: kernels_agree(torch.float16, 1e-2),
        "attention kernel": auto_is_fused,
        "train fp32": lambda: loss_falls(None),
        "train fp16": lambda: loss_falls(torch.float16, scale=True),
        "compile": compile_works,
        "timm": timm_parity,
        "augmentation": augmentation_stays_on_the_device,
        "loop, own choice": lambda: one_epoch(epochs, "auto"),
        "gpu recipe": recipe_of_the_gpu,
        "loop, fp16": lambda: one_epoch(epochs, "fp16"),
    }
    if torch.cuda.is_bf16_supported(including_emulation=False):
        found["attention bf16"] = lambda: kernels_agree(torch.bfloat16, 5e-2)
        found["train bf16"] = lambda: loss_falls(torch.bfloat16)
        found["loop, bf16"] = lambda: one_epoch(epochs, "bf16")
    return found


def main() -> None:
    """Run all checks and say which failed."""
    parser = argparse.ArgumentParser(prog="python -m tools.gpu_check", description=__doc__)
    parser.add_argument("--epochs", type=int, default=1, help="of the training loop; default 1")
    arguments = parser.parse_args()
    if not torch.cuda.is_available():
        print("No CUDA device is here, so there is nothing to check.")
        return
    print(f"{torch.cuda.get_device_name(0)}, torch {torch.__version__}, CUDA {torch.version.cuda}")
    # Where no images lie at hand, drawn ones do: these checks need no network.
    os.environ.setdefault("VITCORE_STANDIN", "1")
    failed = []
    for name, check in checks(arguments.epochs).items():
        start = time.perf_counter()
        try:
            verdict, words = "ok", check()
        except Exception as error:
            failed.append(name)
            verdict, words = "FAILED", f"{type(error).__name__}: {error}"
            if not isinstance(error, AssertionError):
                words += "\n" + traceback.format_exc()
        print(f"{verdict:7} {name:18} {time.perf_counter() - start:6.1f} s  {words}", flush=True)
    sys.exit(f"Failed: {', '.join(failed)}" if failed else 0)


if __name__ == "__main__":
    main()
