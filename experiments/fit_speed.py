"""How long fitting takes, beside the reference's loop over scikit-learn, in one process.

    python experiments/fit_speed.py [--queries 1000] [--models 12] [--items 9] [--largest 100000] [--rounds 5]

Random grades and labels. Per head: the fit and the scores of all queries in one call, the best of some rounds after
compilation, and as many times faster as the reference's ten trees per query, fitted and read in a loop on the same
numbers (`compat`'s regressor, over at most 200 queries, in proportion). Then the default head's time per query for more
and more queries. The compile time is told apart.
"""

import argparse
import time

import jax
import jax.numpy as jnp
import numpy as np

from rocketjax.reweight import make_panel
from rocketjax.reweight.compat import trees_scores
from rocketjax.reweight.head import STRENGTHS, Data, Name, fit, predict, strength_of

HEADS: tuple[Name, ...] = ("mean", "ridge", "label-free", "pairwise", "calibrated", "soft-trees", "shared")


def data_of(Q: int, M: int, I: int) -> Data:  # noqa: E741
    rng = np.random.default_rng(0)
    quality = rng.normal(size=(Q, M, 1))
    p = 1 / (1 + np.exp(-quality * rng.random((Q, 1, I)) - rng.normal(size=(Q, M, I))))
    label = np.clip(np.round(5.5 + 2 * quality[..., 0] + rng.normal(size=(Q, M))), 1, 10)
    made = make_panel(range(Q), range(M), p, np.ones((Q, I), bool), np.ones((Q, M), bool), label)  # type: ignore[arg-type]
    return jax.tree.map(jnp.asarray, made.data)


def timed(call, rounds: int) -> tuple[float, float]:
    """The first call and the best of the others, seconds."""
    times = []
    for _ in range(rounds + 1):
        at = time.perf_counter()
        jax.block_until_ready(call())
        times.append(time.perf_counter() - at)
    return times[0], min(times[1:])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, value in (("queries", 1000), ("models", 12), ("items", 9), ("largest", 100_000), ("rounds", 5)):
        parser.add_argument(f"--{name}", type=int, default=value)
    a = parser.parse_args()
    d = data_of(a.queries, a.models, a.items)
    few = min(a.queries, 200)
    trees_scores(np.asarray(d.p_QMI[:2], float), np.asarray(d.item_QI[:2]), np.asarray(d.label_QM[:2], float), True)
    at = time.perf_counter()
    trees_scores(
        np.asarray(d.p_QMI[:few], float), np.asarray(d.item_QI[:few]), np.asarray(d.label_QM[:few], float), True
    )
    reference = (time.perf_counter() - at) / few
    device = jax.devices()[0]
    print(f"{a.queries} queries x {a.models} models x {a.items} items on {device.device_kind}; reference: "
          f"{1e3 * reference:.2f} ms per query")  # fmt: skip
    feature = jnp.asarray(np.random.default_rng(1).normal(size=(a.queries, a.items, 32)), jnp.float32)
    for head in HEADS:
        given = feature if head == "shared" else None

        def call(head=head, given=given):
            params = fit(head, d, feature_QIE=given, strength=strength_of(head, d, given))
            return predict(head, params, d.p_QMI, d.item_QI)

        first, best = timed(call, a.rounds if head not in STRENGTHS else 1)
        ratio = reference * a.queries / best
        print(f"{head:<12} {1e3 * best:10.1f} ms   {1e3 * best / a.queries:8.4f} ms per query   {ratio:8.1f} x the "
              f"reference   (first call {first:.1f} s)", flush=True)  # fmt: skip
    count = 100
    while count <= a.largest:
        d = data_of(count, a.models, a.items)
        _, best = timed(lambda d=d: predict("ridge", fit("ridge", d), d.p_QMI, d.item_QI), a.rounds)
        print(f"ridge, {count:>7,} queries: {1e3 * best:9.1f} ms, {1e6 * best / count:8.2f} us per query", flush=True)
        count *= 10


if __name__ == "__main__":
    main()
