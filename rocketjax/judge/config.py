"""The shape of a judge: one frozen config for all families, and its readers.

A family is a reader here and a weight table in `weights.py`; the forward pass in `model.py` is shared.
"""

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Config:
    """Everything that the forward pass needs to know about a decoder-only transformer.

    Letters are the axis names of `model.py`: `layers` blocks, `D` width, `N` query heads that share `K`
    key heads, `H` head width, `F` hidden width of the MLP, `V` vocabulary.
    """

    family: Literal["llama", "gemma3"]
    layers: int
    D: int
    N: int
    K: int
    H: int
    F: int
    V: int
    context: int  # longest prompt that the model was trained for, tokens
    norm_eps: float
    rope_theta: float  # base of the rotary embedding in full-attention layers
    rope_scale: float = 1.0  # positions are divided by it in full-attention layers (linear scaling)
    tied: bool = True  # the output head is the embedding
    activation: Literal["silu", "gelu"] = "silu"  # gelu: the tanh approximation
    gain_offset: float = 0.0  # a norm multiplies by (gain + offset); Gemma stores gain - 1
    embed_scale: float = 1.0  # Gemma multiplies embeddings by sqrt(D), rounded to bf16 by its owner's code
    query_scale: float = 0.0  # queries are multiplied by it; 0 stands for H ** -0.5
    qk_norm: bool = False  # RMS norm of each query and key head, before the rotation
    post_norms: bool = False  # a second RMS norm after attention and after the MLP
    window: int = 0  # a local layer sees this many tokens back along its path, itself included; 0: none
    local_layers: tuple[int, ...] = ()  # which layers are local
    rope_theta_local: float = 0.0  # base of the rotary embedding in local layers

    def __post_init__(self) -> None:
        if self.N % self.K:
            raise ValueError(f"{self.N} query heads cannot share {self.K} key heads evenly")
        if self.H % 2:
            raise ValueError(f"head width {self.H} is odd; rotary embeddings need an even one")
        if bool(self.local_layers) != bool(self.window):
            raise ValueError("local layers need a window, and a window needs local layers")

    def matmul_flops(self) -> int:
        """Multiply-adds times two of one token through all blocks, without attention's own products."""
        per_layer = self.D * self.H * (2 * self.N + 2 * self.K) + 3 * self.D * self.F
        return 2 * self.layers * per_layer
