"""Text by a model on this machine: many prompts at once, in the slots of each device.

A slot that is done takes the next prompt while the others go on. A text depends on its prompt, the settings and the
seed alone: on one backend in f32 bit for bit, whatever the other prompts, their order, the slot and the number of
devices on the data axis.
"""

import functools
import hashlib
import math
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from rocketjax.errors import RocketError
from rocketjax.generate.decode import Cache, Prompt, Settings, Slots, Told, empty, fill, step
from rocketjax.judge import MeshShape, Places, Transformer, attention, make_mesh, manual, turned, untyped
from rocketjax.prompt import Tokenizer, row_lengths

Reason = Literal["stop", "length"]

# What ends a turn or a text in the formats of `prompt/chat.py` and in base models.
ENDS = (
    "<|im_end|>", "<|eot_id|>", "<|eom_id|>", "<end_of_turn>", "<|endoftext|>", "<|end_of_text|>", "<eos>", "</s>",
)  # fmt: skip
SLOTS = 16  # texts that a device writes at once
LONGEST = row_lengths(1 << 30)[-1]  # tokens of prompt and answer together


@dataclass(frozen=True)
class Generated:
    """What a model wrote after one prompt. `tokens` and `text` end before the stop token; `reason` says whether there
    was one. `logprob` is the sum over the tokens, the stop token's included, under the model as it is (nats)."""

    tokens: tuple[int, ...]
    text: str
    reason: Reason
    logprob: float


def stop_ids(tokenizer: Tokenizer) -> tuple[int, ...]:
    """The tokens of this vocabulary that end a turn or a text."""
    return tuple(tokenizer.special(name) for name in ENDS if tokenizer.has_special(name))


@dataclass(eq=False)
class Work:
    """A prompt in a slot. `sent` counts the steps that were begun for it."""

    index: int
    tokens: list[int] = field(default_factory=list)
    logprob: float = 0.0
    sent: int = 0
    done: bool = False


@functools.cache  # what a process has traced and compiled serves its next generator of the same shape
def programs(mesh: Mesh, structure: Any, heads: str | None, kernel: attention.Skipping) -> tuple[Any, Any, Any]:
    """The jitted `empty`, `fill` and `step` on a mesh, of a model's arrays in this tree structure.

    A Flax module costs milliseconds at every call. `heads` is the axis that key heads are cut over, if any. Caches and
    slots are given away: their memory holds the next ones.
    """
    data, whole = PartitionSpec("data"), PartitionSpec()
    by_slot = NamedSharding(mesh, data)
    by_head = NamedSharding(mesh, PartitionSpec("data", heads))
    state: Any = (by_head, by_slot)

    def model(arrays: list[Array]) -> Transformer:
        return jax.tree.unflatten(structure, arrays)

    def device_empty(arrays: list[Array], slots: int, length: int) -> tuple[Cache, Slots]:
        return empty(model(arrays), slots, length)

    def device_fill(arrays: list[Array], cache: Cache, slots: Slots, prompts: Prompt) -> tuple[Cache, Slots]:
        return fill(model(arrays), cache, slots, Prompt(*(x[0] for x in prompts)), kernel)

    def device_step(arrays: list[Array], cache: Cache, slots: Slots, settings: Settings) -> tuple[Cache, Slots, Told]:
        return step(model(arrays), cache, slots, settings)

    over = functools.partial(jax.shard_map, mesh=mesh, check_vma=False, axis_names=manual(mesh))
    filling = over(device_fill, in_specs=(whole, data, data, data), out_specs=(data, data))
    stepping = over(device_step, in_specs=(whole, data, data, whole), out_specs=(data, data, data))
    return (
        jax.jit(device_empty, static_argnums=(1, 2), out_shardings=state),
        jax.jit(filling, donate_argnums=(1, 2), out_shardings=state),
        jax.jit(stepping, donate_argnums=(1, 2), out_shardings=(*state, by_slot)),
    )


class Generator:
    """A model on a mesh that writes, `slots` texts at once on each device.

    The model's layers are taken apart in place if they were stacked (`Transformer.unstack_layers`). On a CPU in f32 the
    projections are held as turned copies (`judge.turned`), for steps are faster so; let go of the model to have memory
    for one of them only. Texts in bf16 and int8 may differ between numbers of slots, those in f32 in the last bits of a
    near tie. One process; raises RocketError for a mesh of several.
    """

    def __init__(self, model: Transformer, tokenizer: Tokenizer, mesh: Mesh | None = None, slots: int = SLOTS) -> None:
        if slots < 1:
            raise RocketError(f"slots is {slots}; a device needs at least 1")
        self.mesh = untyped(mesh) if mesh is not None else make_mesh(MeshShape(jax.local_device_count()))
        if any(d.process_index != jax.process_index() for d in self.mesh.devices.flat):
            raise RocketError("generation takes a mesh of one process's devices; give each process its own prompts")
        self.config, self.tokenizer, self.slots = model.config, tokenizer, slots
        model.unstack_layers()
        places = Places(self.config, self.mesh)
        placed = places.place(model)
        platform = self.mesh.devices.flat[0].platform
        weight = placed.blocks[0].q_DNH.get_value()
        exact = isinstance(weight, jax.Array) and weight.dtype == jnp.float32
        if platform == "cpu" and exact and self.mesh.shape["model"] == 1:
            placed = turned(placed)
        self.arrays, structure = jax.tree.flatten(placed)
        self.by_device = NamedSharding(self.mesh, PartitionSpec("data"))
        self.whole = places.whole
        self.devices = self.mesh.shape["data"]
        kernel = attention.skipping_for(platform)
        self.empty, self.fill, self.step = programs(self.mesh, structure, places.where.get("K"), kernel)

    def generate(
        self,
        prompts: Sequence[Sequence[int]],
        max_new: int,
        temperature: float = 0.0,
        top_p: float = 1.0,
        seed: int = 0,
        stop: Sequence[int] | None = None,
    ) -> list[Generated]:
        """What follows each prompt (token ids, its BOS included), in their order. See `stream`."""
        found = dict(self.stream(prompts, max_new, temperature, top_p, seed, stop))
        return [found[i] for i in range(len(prompts))]

    def stream(
        self,
        prompts: Sequence[Sequence[int]],
        max_new: int,
        temperature: float = 0.0,
        top_p: float = 1.0,
        seed: int = 0,
        stop: Sequence[int] | None = None,
    ) -> Iterator[tuple[int, Generated]]:
        """Each prompt's index and what follows it, as soon as it is there.

        A text ends before the first of the tokens `stop` (None: `stop_ids`; (): none), or with `max_new` tokens. A
        temperature of 0 takes the most probable token; else tokens are drawn at that temperature from the `top_p` of
        probability. The draw depends on the seed (0 to 2**32 - 1) and the prompt's tokens, so equal prompts get equal
        texts. Raises RocketError, at once, for a setting that cannot be, and for a prompt that is empty, has a token
        outside the vocabulary or is too long with `max_new` for the model's context; later for logits that are not
        finite.
        """
        settings = self.settings(temperature, top_p, seed)
        if max_new < 1:
            raise RocketError(f"max_new is {max_new}; it must be at least 1")
        ends = frozenset(stop_ids(self.tokenizer) if stop is None else stop)
        arrays = [self.checked(index, prompt, max_new) for index, prompt in enumerate(prompts)]
        # Prompts with one length of cache share its slots; which one is decided by the prompt and `max_new` alone.
        waiting: dict[int, dict[int, deque[int]]] = {}
        for index, array in enumerate(arrays):
            length = row_lengths(len(array))[-1]
            cache_length = row_lengths(min(length + max_new, LONGEST))[-1]
            waiting.setdefault(cache_length, {}).setdefault(length, deque()).append(index)
        return self.run(arrays, dict(sorted(waiting.items())), max_new, settings, ends)

    def settings(self, temperature: float, top_p: float, seed: int) -> Settings:
        if not 0 <= temperature < math.inf:
            raise RocketError(f"temperature is {temperature}; it must be 0 or a positive number")
        if not 0 < top_p <= 1:
            raise RocketError(f"top_p is {top_p}; it must be above 0 and at most 1")
        if not 0 <= seed < 1 << 32:
            raise RocketError(f"seed is {seed}; it must be from 0 to {(1 << 32) - 1}")
        values: list[Any] = [np.uint32(seed), np.float32(temperature), np.float32(top_p)]
        placed: Settings = jax.device_put(Settings(*values), self.whole)
        return placed

    def checked(self, index: int, prompt: Sequence[int], max_new: int) -> np.ndarray:
        array = np.asarray(prompt, np.int32)
        most = min(self.config.context, LONGEST)
        if array.ndim != 1 or not len(array):
            raise RocketError(f"prompt {index} is empty or no list of token ids")
        if array.min() < 0 or array.max() >= self.config.V:
            raise RocketError(f"prompt {index} has a token outside of the vocabulary of {self.config.V}")
        if len(array) + max_new > most:
            raise RocketError(
                f"prompt {index} has {len(array)} tokens; with {max_new} new ones this model takes {most}"
            )
        return array

    def run(
        self,
        arrays: list[np.ndarray],
        waiting: dict[int, dict[int, deque[int]]],
        max_new: int,
        settings: Settings,
        ends: frozenset[int],
    ) -> Iterator[tuple[int, Generated]]:
        for length, queues in waiting.items():
            cache, slots = self.empty(self.arrays, self.slots * self.devices, length)
            owners: list[Work | None] = [None] * (self.slots * self.devices)
            flying: tuple[Told, list[tuple[int, Work]]] | None = None
            while True:
                while prompt := self.next_prompt(arrays, queues, owners):
                    cache, slots = self.fill(self.arrays, cache, slots, prompt)
                landing, flying = flying, None
                if busy := [(slot, work) for slot, work in enumerate(owners) if work]:
                    cache, slots, told = self.step(self.arrays, cache, slots, settings)
                    flying = told, busy
                    for slot, work in busy:
                        work.sent += 1
                        if work.sent == max_new:
                            owners[slot] = None
                # Read while the device computes the step after it; a text that turns out to be over is one step ahead.
                if landing:
                    yield from self.land(*landing, owners, max_new, ends)
                if not flying:
                    break

    def next_prompt(
        self, arrays: list[np.ndarray], queues: dict[int, deque[int]], owners: list[Work | None]
    ) -> Prompt | None:
        """A prompt of one length for each device that has a free slot, and the slots given away; None if there is no
        slot or no prompt left."""
        free = [
            next((s for s in range(self.slots) if owners[device * self.slots + s] is None), None)
            for device in range(self.devices)
        ]
        length = next((length for length, queue in queues.items() if queue), None)
        if length is None or all(slot is None for slot in free):
            return None
        token = np.zeros((self.devices, length), np.int32)
        count, place = np.ones(self.devices, np.int32), np.full(self.devices, self.slots, np.int32)
        name = np.zeros((self.devices, 2), np.uint32)
        for device, slot in enumerate(free):
            if slot is None or not queues[length]:
                continue
            index = queues[length].popleft()
            array = arrays[index]
            token[device, : len(array)], count[device], place[device] = array, len(array), slot
            name[device] = np.frombuffer(hashlib.sha256(array.astype("<i4").tobytes()).digest()[:8], "<u4")
            owners[device * self.slots + slot] = Work(index)
        values: list[Any] = [token, count, place, name]
        placed: Prompt = jax.device_put(Prompt(*values), self.by_device)
        return placed

    def land(
        self,
        told: Told,
        busy: list[tuple[int, Work]],
        owners: list[Work | None],
        max_new: int,
        ends: frozenset[int],
    ) -> Iterator[tuple[int, Generated]]:
        """Takes one step's tokens to their texts; gives those that are over and frees their slots."""
        token_S, logprob_S = np.asarray(told.token_S), np.asarray(told.logprob_S)
        for slot, work in busy:
            if work.done:
                continue
            token, logprob = int(token_S[slot]), float(logprob_S[slot])
            if not math.isfinite(logprob):
                raise RocketError(f"the logits after prompt {work.index} and {len(work.tokens)} tokens are not finite")
            work.logprob += logprob
            stopped = token in ends
            if not stopped:
                work.tokens.append(token)
            if stopped or len(work.tokens) == max_new:
                work.done = True
                if owners[slot] is work:
                    owners[slot] = None
                text = self.tokenizer.decode(work.tokens)
                yield work.index, Generated(tuple(work.tokens), text, "stop" if stopped else "length", work.logprob)
