"""Judges that are known to load, and what of them is on this machine."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from rocketjax.judge.config import HF_FAMILIES, Family
from rocketjax.judge.source import BASE, FILES, find_default, in_hub_cache


@dataclass(frozen=True)
class Known:
    """A judge by the name that `--judge` takes; sizes in bytes.

    `parameters` is the owner's own figure, None where nobody gave one. `size` is that of the files on this machine,
    else an estimate of the download: two bytes per parameter. `state` says which: `here`, `not here`, or `gated` for
    one that is not here and whose owner wants terms accepted first.
    """

    name: str
    family: Family
    parameters: float | None
    size: int
    state: Literal["here", "not here", "gated"]


# Name on the hub, family, parameters in millions as the owner's model card or the name says, gated.
HUB: tuple[tuple[str, Family, float, bool], ...] = (
    ("HuggingFaceTB/SmolLM2-135M-Instruct", "llama", 135, False),
    ("HuggingFaceTB/SmolLM2-360M-Instruct", "llama", 362, False),
    ("HuggingFaceTB/SmolLM2-1.7B-Instruct", "llama", 1710, False),
    ("meta-llama/Llama-3.2-1B-Instruct", "llama", 1240, True),
    ("meta-llama/Llama-3.2-3B-Instruct", "llama", 3210, True),
    ("meta-llama/Llama-3.1-8B-Instruct", "llama", 8030, True),
    ("meta-llama/Meta-Llama-3-8B-Instruct", "llama", 8030, True),
    ("google/gemma-2-2b-it", "gemma2", 2610, True),
    ("google/gemma-2-9b-it", "gemma2", 9240, True),
    ("google/gemma-3-270m-it", "gemma3", 268, True),
    ("google/gemma-3-1b-it", "gemma3", 1000, True),
    ("google/gemma-3-4b-it", "gemma3", 4300, True),
    ("Qwen/Qwen2.5-0.5B-Instruct", "qwen2", 494, False),
    ("Qwen/Qwen2.5-1.5B-Instruct", "qwen2", 1540, False),
    ("Qwen/Qwen2.5-3B-Instruct", "qwen2", 3090, False),
    ("Qwen/Qwen2.5-7B-Instruct", "qwen2", 7620, False),
    ("Qwen/Qwen3-0.6B", "qwen3", 600, False),
    ("Qwen/Qwen3-1.7B", "qwen3", 1700, False),
    ("Qwen/Qwen3-4B-Instruct-2507", "qwen3", 4000, False),
    ("Qwen/Qwen3-8B", "qwen3", 8200, False),
)


def known_judges() -> list[Known]:
    """The default, its base, the judges of `HUB`, and whatever else of their families the hub's cache holds."""
    default = find_default()
    size = size_of(default.path) if default else 92_000_000
    state: Literal["here", "not here"] = "here" if default else "not here"
    found = [Known(name, "llama", 135e6, size, state) for name in ("(default)", BASE)]
    for name, family, millions, gated in HUB:
        folder = in_hub_cache(name, None)
        size = size_of(folder) if folder else round(2e6 * millions)
        found.append(Known(name, family, 1e6 * millions, size, "here" if folder else "gated" if gated else "not here"))
    return found + others({judge.name for judge in found})


def size_of(path: Path) -> int:
    """Bytes of a judge's file, or of the files of its folder that are read."""
    return sum(f.stat().st_size for f in ([path] if path.is_file() else (f for p in FILES for f in path.glob(p))))


def others(listed: set[str]) -> list[Known]:
    """Whole judges of the known families in the hub's cache that are not in the list."""
    from huggingface_hub import constants, scan_cache_dir
    from huggingface_hub.errors import CacheNotFound

    try:
        repos = scan_cache_dir(constants.HF_HUB_CACHE).repos
    except CacheNotFound:
        return []
    found = []
    for repo in sorted(repos, key=lambda r: r.repo_id):
        folder = in_hub_cache(repo.repo_id, None) if repo.repo_type == "model" and repo.repo_id not in listed else None
        if folder is None:
            continue
        try:
            kind = json.loads((folder / "config.json").read_text("utf-8")).get("model_type")
        except (OSError, ValueError, AttributeError):
            continue
        if isinstance(kind, str) and kind in HF_FAMILIES:
            found.append(Known(repo.repo_id, HF_FAMILIES[kind], None, size_of(folder), "here"))
    return found
