# SPDX-License-Identifier: MIT
"""Where pretrained tensors come from: models, files, folders and addresses."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from .._inputs import shown
from ..data import DownloadError, cache_dir
from ..data._inputs import check_path
from ..data.download import checksum, download
from ..training.files import Weights, read_tensors

SIZE_LIMIT = 6_000_000_000  # bytes of a file to download
CONTAINERS = ("model", "state_dict", "teacher")  # under which a pickled file may hold its weights


def read(source: Any, unpickle: bool, sha256: str | None) -> tuple[Weights, dict[str, Any], str]:
    """The tensors of any source, what it says beside them, and its name for messages."""
    if isinstance(source, nn.Module):
        return dict(source.state_dict()), _look_at(source), f"the {type(source).__name__}"
    if isinstance(source, str) and source.startswith("timm:"):
        try:
            import timm
            from timm.data import ImageNetInfo, infer_imagenet_subset
        except ImportError as error:
            raise RuntimeError(f"{source} needs timm ({error}); pip install timm.") from error

        model = timm.create_model(source.removeprefix("timm:"), pretrained=True)
        facts, subset = _look_at(model), infer_imagenet_subset(model)
        if subset and facts.get("classes") is None:
            facts["classes"] = ImageNetInfo(subset).label_descriptions()
        return dict(model.state_dict()), facts, source
    facts = {}
    if hasattr(source, "meta") and hasattr(source, "url"):  # one of torchvision's enums
        images = source.transforms()
        facts = {"classes": source.meta["categories"], "mean": images.mean, "std": images.std}
        source = source.url
    if isinstance(source, str) and re.match(r"\w+://", source):
        path = _fetch(source, sha256)
        return _read_file(path, unpickle), facts, source
    path = check_path("source", source)
    if path.is_dir():
        for name in ("preprocessor_config.json", "config.json"):
            facts |= read_config(path / name) if (path / name).exists() else {}
        names = ["model.safetensors", *(["pytorch_model.bin"] if unpickle else [])]
        path = next((path / n for n in names if (path / n).exists()), path / names[0])
    return _read_file(path, unpickle), facts, str(path)


def _fetch(url: str, sha256: str | None) -> Path:
    """The file behind an address, in the cache under its checksum."""
    name = re.sub(r"[?#].*", "", url).rsplit("/", 1)[-1]
    in_name = re.search(r"-([0-9a-f]{8,64})\.\w+$", name)
    digits = sha256 or (in_name[1] if in_name else "")
    if not url.startswith(("https://", "http://")) or not name:
        raise ValueError(f"source is {shown(url)}; give an https address of a file.")
    if not re.fullmatch("[0-9a-f]{8,64}", digits):
        wanted = "give sha256, as the file's page shows it, or download it and give its path"
        raise ValueError(f"{url} comes with no checksum of 8 to 64 hexadecimal digits; {wanted}.")
    path = cache_dir() / "weights" / digits / name
    if not (path.is_file() and checksum(path, "sha256").startswith(digits)):
        try:
            download(url, path, size_limit=SIZE_LIMIT, sha256=digits)
        except DownloadError as error:
            mend = f"try again, or put the file at {path}"
            raise DownloadError(f"could not download {url} ({error}); {mend}.") from error
    return path


def _read_file(path: Path, unpickle: bool) -> Weights:
    """The tensors of a safetensors file, or of a pickle that the caller trusts."""
    if not path.is_file() or path.suffix == ".safetensors":
        return read_tensors(path, "file of weights")[0]
    if not unpickle:
        danger = "is no .safetensors, and a pickle can run code when it is opened"
        raise ValueError(f"{path} {danger}; give unpickle=True if you trust whoever made it.")
    try:
        found = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch, pickle and zipfile raise errors of every kind
        told = " ".join(str(error).split())[:200]
        raise ValueError(
            f"{path} cannot be opened as weights alone ({told}); convert it."
        ) from error
    inner = [found[n] for n in CONTAINERS if isinstance(found, dict) and n in found]
    found = inner[0] if inner else found
    if not isinstance(found, dict) or not all(isinstance(v, Tensor) for v in found.values()):
        raise ValueError(f"{path} holds {shown(found)}; give a file of tensors by name.")
    return found


def read_config(config: Any) -> dict[str, Any]:
    """What a config.json of Hugging Face or timm says that the tensors do not, by our names."""
    if config is None:
        return {}
    if not isinstance(config, Mapping):
        path = check_path("config", config)
        try:
            config = json.loads(path.read_text("utf-8"))
        except (OSError, ValueError) as error:
            raise ValueError(f"{path} cannot be read as JSON ({error}); check the file.") from error
        if not isinstance(config, dict):
            raise ValueError(f"{path} holds {shown(config)}; give a JSON object.")
    timm = config.get("pretrained_cfg") or {}
    act, names = config.get("hidden_act", "gelu"), config.get("id2label")
    if act != "gelu":
        raise ValueError(f"its hidden_act is {shown(act)}; vitcore's ViT has the exact GELU alone.")
    found = {
        "heads": config.get("num_attention_heads"),
        "pool": {"token": "cls", "avg": "mean"}.get(config.get("global_pool", "")),
        "image_size": config.get("image_size") or (timm.get("input_size") or [None])[1:] or None,
        "eps": config.get("layer_norm_eps"),
        "mean": config.get("image_mean") or timm.get("mean"),
        "std": config.get("image_std") or timm.get("std"),
        "classes": config.get("label_names"),
    }
    if names and not all(re.fullmatch(r"LABEL_\d+", name) for name in names.values()):
        found["classes"] = [names[key] for key in sorted(names, key=int)]
    return {name: value for name, value in found.items() if value is not None}


def _look_at(module: nn.Module) -> dict[str, Any]:
    """What a model says of itself, by our names."""
    config: Any = getattr(module, "config", None)  # of transformers
    if hasattr(config, "to_dict"):
        return read_config(config.to_dict())
    pool = getattr(module, "global_pool", "token")  # of timm
    facts = read_config({"pretrained_cfg": getattr(module, "pretrained_cfg", None),
                          "global_pool": pool})  # fmt: skip
    heads = [n for m in module.modules() if isinstance(n := getattr(m, "num_heads", None), int)]
    eps = [m.eps for m in module.modules() if isinstance(m, nn.LayerNorm)]
    facts |= {"heads": heads[0]} if heads else {}
    facts |= {"eps": eps[0]} if eps else {}
    grid: Any = getattr(module, "patch_embed", None)
    return facts | ({"image_size": grid.img_size} if getattr(grid, "img_size", None) else {})
