"""What the `shared` head knows of an item: the judge's own hidden state, cut to its main directions.

Axes: Q queries, I items, D width of the judge, E features.
"""

from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from rocketjax.errors import RocketError
from rocketjax.grade import FEATURES, Run, read_table, write_table
from rocketjax.reweight.panels import Panel

SIZE = 32  # directions kept: labels are hundreds, hidden widths too


def save_features(run: Run, table: pa.Table, weights_sha256: str) -> Path:
    """Writes features.parquet to the run; its metadata say whose hidden states they are."""
    path = run.path / "features.parquet"
    write_table(path, table.replace_schema_metadata({b"weights_sha256": weights_sha256.encode()}))
    return path


def features_judge(run: Run) -> str | None:
    """The sha256 of the weights whose hidden states the run's features are; None where it has none."""
    path = run.path / "features.parquet"
    if not path.exists():
        return None
    return (read_table(path, None).schema.metadata or {}).get(b"weights_sha256", b"").decode()


def features_of(run: Run, panel: Panel) -> npt.NDArray[np.float32] | None:
    """f32[Q, I, E] of the panel's items, or None where the run has no features yet.

    Hidden states less their mean, on their first `SIZE` right singular vectors, each direction of deviation 1 (Mu &
    Viswanath 2018, arXiv 1702.01417, without their removal of the first). Raises RocketError where they are of other
    items.
    """
    path = run.path / "features.parquet"
    if not path.exists():
        return None
    table = read_table(path, None).replace_schema_metadata(None)
    if not table.schema.equals(FEATURES):
        raise RocketError(f"{path}: has other columns than features of this version; delete it")
    place = {s: q for q, s in enumerate(panel.sessions)}
    q = np.asarray([place.get(s, -1) for s in table["session_id"].to_pylist()])
    i = table["item"].to_numpy()
    item_QI = np.asarray(panel.data.item_QI)
    inside = (q >= 0) & (i < item_QI.shape[1])
    if inside.sum() != item_QI.sum() or not item_QI[q[inside], i[inside]].all():
        raise RocketError(f"{path}: is of other queries or checklists than the run; delete it")
    state = np.asarray(table["feature"].to_pylist(), np.float64)[inside]
    state = state - state.mean(axis=0)
    u, size, _ = np.linalg.svd(state, full_matrices=False)
    kept = min(SIZE, int((size > 1e-6 * size[0]).sum())) if size[0] > 0 else 0
    out = np.zeros((*item_QI.shape, SIZE), np.float32)
    out[q[inside], i[inside], :kept] = u[:, :kept] * np.sqrt(len(state))
    return out
