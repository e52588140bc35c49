"""A config and weights into one Flax NNX `Transformer` with tree attention, for all families."""

from rocketjax.judge.adapter import (
    TARGETS,
    Card,
    adapter_paths,
    init_adapter,
    init_eva,
    load_adapter,
    merge,
    save_adapter,
)
from rocketjax.judge.config import Config, config_sha256, read_gguf_config, read_hf_config
from rocketjax.judge.hosts import Team, agree, begin, first, leave, places_for, team_of
from rocketjax.judge.known import Known, known_judges
from rocketjax.judge.load import (
    Dtype,
    load_model,
    read_config,
    save_judge,
    weight_bytes,
    weights_sha256,
    write_folder,
)
from rocketjax.judge.model import Adapter, Kernel, LowRank, Row, Transformer, turned
from rocketjax.judge.serve import convert, fast_dtype, load_judge
from rocketjax.judge.sharding import (
    MeshShape,
    Places,
    choose_mesh,
    collectives,
    layout,
    make_mesh,
    manual,
    parse_mesh,
    untyped,
)
from rocketjax.judge.source import BASE, Checkpoint, find_default, locate

__all__ = [
    "BASE", "TARGETS", "Adapter", "Card", "Checkpoint", "Config", "Dtype", "Kernel", "Known", "LowRank",
    "MeshShape", "Places", "Row", "Team", "Transformer", "adapter_paths", "agree", "begin",
    "choose_mesh", "collectives", "config_sha256", "convert", "fast_dtype", "find_default", "first", "init_adapter",
    "init_eva", "known_judges",
    "layout", "leave", "load_adapter", "load_judge", "load_model", "locate", "make_mesh", "manual", "merge",
    "parse_mesh", "places_for", "read_config", "read_gguf_config", "read_hf_config", "save_adapter",
    "save_judge", "team_of", "turned", "untyped", "weight_bytes", "weights_sha256", "write_folder",
]  # fmt: skip
