"""The two programs of generation: a prompt into the cache of a slot, and one step of all slots.

Both run per device, over the slots of that device, whose number is fixed: what is computed for a slot has the same
shapes whatever the others do, and nothing of one slot enters another's sums. A local layer keeps only the keys and
values of its window, in a ring: position p lies at p mod the ring's length.

Axes: S slots of a device, C positions of a layer's cache, T tokens of a padded prompt, D width, N query heads, K key
heads, G = N / K, H head width, V vocabulary.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from rocketjax.judge import Config, Transformer, attention
from rocketjax.judge.attention import MASKED, Tree, products, softcap
from rocketjax.judge.model import rms_norm, rotary

FEW = 256  # tokens that are looked at first for those that reach top_p


class Layer(NamedTuple):
    """What a layer keeps, in the dtype of its weights' products; positions that were not written are zeros."""

    k_SKCH: Array
    v_SKCH: Array


Cache = tuple[Layer, ...]


class Slots(NamedTuple):
    """The newest token of each slot, which no cache holds yet: int32[S], its position, and what its prompt is called:
    uint32[S, 2], a hash of its tokens."""

    token_S: Array
    position_S: Array
    name_S2: Array


class Prompt(NamedTuple):
    """A prompt for one slot: padded to T, with its length; a slot that is not there (S) leaves everything as it is."""

    token_T: Array
    length: Array
    slot: Array
    name_2: Array


class Settings(NamedTuple):
    """How tokens are drawn: uint32[], f32[], f32[]. A temperature of 0 takes the most probable one."""

    seed: Array
    temperature: Array
    top_p: Array


class Told(NamedTuple):
    """The next token of each slot, and its log probability under the model as it is (temperature 1, all tokens)."""

    token_S: Array
    logprob_S: Array


def layer_lengths(config: Config, length: int) -> list[int]:
    """Positions that each layer's cache holds, for texts of up to `length` tokens."""
    return [min(config.window, length) if n in config.local_layers else length for n in range(config.layers)]


def empty(model: Transformer, slots: int, length: int) -> tuple[Cache, Slots]:
    """Cache and slots before the first prompt."""
    c = model.config
    dtype = model.blocks[0].k_DKH.get_value().dtype

    def layer(size: int) -> Layer:
        return Layer(*(jnp.zeros((slots, c.K, size, c.H), dtype) for _ in range(2)))

    none = jnp.zeros(slots, jnp.int32)
    return tuple(map(layer, layer_lengths(c, length))), Slots(none, none, jnp.zeros((slots, 2), jnp.uint32))


def fill(
    model: Transformer, cache: Cache, slots: Slots, prompt: Prompt, kernel: attention.Skipping
) -> tuple[Cache, Slots]:
    """Puts a prompt into its slot: all its tokens but the last into the cache, in one pass.

    The last one is the slot's newest token, so the first step draws what follows the prompt.
    """
    c = model.config
    T = len(prompt.token_T)
    place_T = jnp.arange(T)
    real_T = place_T < prompt.length
    tree = Tree(
        jnp.where(real_T, prompt.length, place_T + 1),
        jnp.where(real_T, jnp.maximum(place_T - c.window + 1, 0), place_T),
    )
    live = attention.skipping(kernel)
    kinds = {n in c.local_layers for n in range(c.layers)}
    plans = {local: attention.schedule(place_T, tree, local) for local in kinds}
    tables = {local: rotary(place_T, c, local) for local in kinds}
    kept = prompt.length - 1
    x_TD = model.embed(prompt.token_T) * c.embed_scale
    filled = []
    for n, (block, layer) in enumerate(zip(model.blocks, cache, strict=True)):
        local = n in c.local_layers

        def attend(q_TNH: Array, k_TKH: Array, v_TKH: Array, layer: Layer = layer, local: bool = local) -> Array:
            filled.append(
                Layer(*(put_prompt(own, x, kept, prompt.slot) for own, x in zip(layer, (k_TKH, v_TKH), strict=True)))
            )
            return live(q_TNH, k_TKH, v_TKH, place_T, tree, local, plans[local], c.attn_softcap)

        # What comes out of the last layer is not used, so the compiler leaves its queries and MLP out.
        x_TD = block.around(attend, x_TD, tables[local], c)
    newest = (prompt.token_T[kept], kept, prompt.name_2)
    own = Slots(*(old.at[prompt.slot].set(new, mode="drop") for old, new in zip(slots, newest, strict=True)))
    return tuple(filled), own


def put_prompt(own_SKCH: Array, x_TKH: Array, kept: Array, slot: Array) -> Array:
    """The cache with the first `kept` tokens of a prompt in one slot, or the last C of them; zeros elsewhere in it."""
    C = own_SKCH.shape[2]
    place_C = kept - 1 - (kept - 1 - jnp.arange(C)) % C if len(x_TKH) > C else jnp.arange(C)
    inside_C = (place_C >= 0) & (place_C < kept)
    row_CKH = jnp.where(inside_C[:, None, None], x_TKH[jnp.clip(place_C, 0, len(x_TKH) - 1)], 0)
    return own_SKCH.at[slot].set(row_CKH.transpose(1, 0, 2), mode="drop")


def step(model: Transformer, cache: Cache, slots: Slots, settings: Settings) -> tuple[Cache, Slots, Told]:
    """One more token for every slot."""
    c = model.config
    tables = {local: rotary(slots.position_S, c, local) for local in {n in c.local_layers for n in range(c.layers)}}
    x_SD = model.embed(slots.token_S) * c.embed_scale
    grown = []
    for n, (block, layer) in enumerate(zip(model.blocks, cache, strict=True)):

        def attend(q_SNH: Array, k_SKH: Array, v_SKH: Array, layer: Layer = layer) -> Array:
            layer = Layer(*(put_token(own, x, slots.position_S) for own, x in zip(layer, (k_SKH, v_SKH), strict=True)))
            grown.append(layer)
            return attend_cached(q_SNH, layer, slots.position_S, c.attn_softcap)

        x_SD = block.around(attend, x_SD, tables[n in c.local_layers], c)
    told = draw(model.logits(rms_norm(x_SD, model.final_norm_D[...], c)), slots, settings)
    return tuple(grown), Slots(told.token_S, slots.position_S + 1, slots.name_S2), told


def put_token(own_SKCH: Array, x_SKH: Array, position_S: Array) -> Array:
    """The cache with one more position per slot. A ring takes it in the place of the oldest; a full layer's cache is
    never too short for a slot in use, and what an idle one writes does not matter."""
    S, _, C, _ = own_SKCH.shape
    return own_SKCH.at[jnp.arange(S), :, position_S % C].set(x_SKH)


def attend_cached(q_SNH: Array, layer: Layer, position_S: Array, cap: float) -> Array:
    """Softmax attention of one query per slot over its cache: f32[S, N, H]. Queries come scaled.

    Once a ring is full, all it holds is inside the window; before that, and in a full layer, the places up to the
    query's own are what has been written.
    """
    S, N, H = q_SNH.shape
    K, C = layer.k_SKCH.shape[1:3]
    logits = softcap(products(q_SNH.reshape(S, K, N // K, H), layer.k_SKCH, "skgh,skch->skgc"), cap)
    seen_SC = jnp.arange(C) <= position_S[:, None]
    p = jax.nn.softmax(jnp.where(seen_SC[:, None, None], logits, MASKED), axis=-1)
    return products(p, layer.v_SKCH, "skgc,skch->skgh").reshape(S, N, H)


def draw(logits_SV: Array, slots: Slots, settings: Settings) -> Told:
    """The next tokens: the most probable ones, or drawn with a key of seed, prompt and position (Gumbel-max)."""

    def drawn() -> Array:
        warm_SV = nucleus(logits_SV / settings.temperature, settings.top_p)
        noise_SV = jax.vmap(noise, (None, 0, 0, None))(settings.seed, slots.name_S2, slots.position_S, warm_SV.shape[1])
        return jnp.argmax(warm_SV + noise_SV, axis=-1)

    token_S = jax.lax.cond(settings.temperature > 0, drawn, lambda: jnp.argmax(logits_SV, axis=-1)).astype(jnp.int32)
    chosen_S = jnp.take_along_axis(logits_SV, token_S[:, None], axis=-1)[:, 0]
    return Told(token_S, chosen_S - jax.nn.logsumexp(logits_SV, axis=-1))


def noise(seed: Array, name_2: Array, position: Array, vocabulary: int) -> Array:
    """Gumbel noise for one slot at one position: f32[V]."""
    key = jax.random.key(seed)
    for part in (name_2[0], name_2[1], position):
        key = jax.random.fold_in(key, part)
    return jax.random.gumbel(key, (vocabulary,))


def nucleus(logits_SV: Array, top_p: Array) -> Array:
    """Logits of the most probable tokens that together reach `top_p` (Holtzman et al. 2020, arXiv 1904.09751, section
    3.1), others masked; tokens as probable as the last of them stay too."""

    def cut() -> Array:
        mass_S = jax.nn.logsumexp(logits_SV, axis=-1)
        few_SU = jax.lax.top_k(logits_SV, min(FEW, logits_SV.shape[1]))[0]
        least_S, enough_S = last_kept(few_SU, mass_S, top_p)
        # A whole sort takes a CPU many times longer. Every slot takes its own of the two, whatever others need.
        all_S = jax.lax.cond(
            enough_S.all(), lambda: least_S, lambda: last_kept(-jnp.sort(-logits_SV, axis=-1), mass_S, top_p)[0]
        )
        return jnp.where(logits_SV >= jnp.where(enough_S, least_S, all_S)[:, None], logits_SV, MASKED)

    return jax.lax.cond(top_p < 1, cut, lambda: logits_SV)


def last_kept(sorted_SU: Array, mass_S: Array, top_p: Array) -> tuple[Array, Array]:
    """The smallest of the descending logits before which less than `top_p` of probability lies, and whether these
    logits reach it."""
    p_SU = jnp.exp(sorted_SU - mass_S[:, None])
    sum_SU = jnp.cumsum(p_SU, axis=-1)
    return jnp.where(sum_SU - p_SU < top_p, sorted_SU, jnp.inf).min(axis=-1), sum_SU[:, -1] >= top_p
