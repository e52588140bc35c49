"""A config and weights into one Flax NNX `Transformer` with tree attention, for all families."""

from rocketjax.judge.config import Config, read_gguf_config, read_hf_config
from rocketjax.judge.load import convert, load_model, weights_sha256
from rocketjax.judge.model import Row, Transformer
from rocketjax.judge.source import Checkpoint, cache_dir, find_default, locate

__all__ = [
    "Checkpoint", "Config", "Row", "Transformer", "cache_dir", "convert", "find_default", "load_model", "locate",
    "read_gguf_config", "read_hf_config", "weights_sha256",
]  # fmt: skip
