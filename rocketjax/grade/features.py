"""What the judge makes of a checklist item before it has seen any response: its hidden state where the answer would be.

Axes: I items, D width of the judge.
"""

from typing import TYPE_CHECKING

import jax
import jax.numpy as jnp
import numpy as np
import pyarrow as pa

from rocketjax.bench import Benchmark
from rocketjax.judge import Row, Transformer
from rocketjax.prompt import Prompter, pack_query, row_lengths, template

if TYPE_CHECKING:
    from rocketjax.grade.judge import Judge

FEATURES = pa.schema(
    [
        pa.field("session_id", pa.string(), nullable=False),
        pa.field("item", pa.int32(), nullable=False),
        pa.field("feature", pa.list_(pa.float32()), nullable=False),
    ]
)


@jax.jit
def hidden(model: Transformer, row: Row) -> jax.Array:
    return model.hidden(row, "chunked")


def item_features(judge: "Judge", benchmark: Benchmark, template_name: str = "native") -> pa.Table:
    """The final hidden state at the answer's place, f32[D], of the prompt with an empty response; see `FEATURES`.

    It holds the query and the item, and nothing of any response, so that items can be weighed by it without looking at
    what is judged. Over-long queries are cut in the middle.
    """
    longest = min(judge.model.config.context, 2048)
    prompter = Prompter(judge.tokenizer, template(template_name), longest, "truncate-middle")
    sessions: list[str] = []
    items: list[int] = []
    features: list[np.ndarray] = []
    for session_id in sorted(benchmark.checklists):
        checklist, turns = benchmark.checklists[session_id].items, benchmark.queries[session_id].messages
        made = prompter.render(turns, "", checklist, f"session {session_id!r}")
        assert made.sequences is not None, "the prompter cuts, it does not skip"
        state_ID = np.zeros((len(checklist), judge.model.config.D), np.float32)
        for row in pack_query([list(made.sequences)], row_lengths(longest)[-1], judge.model.config.window):
            out_LD = np.asarray(hidden(judge.model, Row(*(jnp.asarray(getattr(row, f)) for f in Row._fields))))
            for leaf, owners in enumerate(row.owners):
                state_ID[list(owners)] = out_LD[leaf]
        sessions += [session_id] * len(checklist)
        items += range(len(checklist))
        features += list(state_ID)
    return pa.table([sessions, np.asarray(items, np.int32), features], schema=FEATURES)
