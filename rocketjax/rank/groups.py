"""Which models differ significantly: corrected tests, and letters that say the same at a glance."""

import numpy as np
import numpy.typing as npt

Float = npt.NDArray[np.float64]


def holm(p_N: Float) -> Float:
    """Holm's step-down correction for testing N hypotheses (Holm 1979); NaN stays and does not count."""
    out = np.full(len(p_N), np.nan)
    known = np.flatnonzero(np.isfinite(p_N))
    order = known[np.argsort(p_N[known], kind="stable")]
    factor = np.arange(len(order), 0, -1)
    out[order] = np.minimum(np.maximum.accumulate(p_N[order] * factor), 1)
    return out


def letters(differs_MM: npt.NDArray[np.bool_]) -> list[str]:
    """Compact letter display of a symmetric relation over models in order: two models share a letter if and only if
    they do not differ (insert and absorb: Piepho 2004, doi:10.1198/1061860043515)."""
    M = len(differs_MM)
    columns: list[frozenset[int]] = [frozenset(range(M))]
    for a in range(M):
        for b in range(a + 1, M):
            if not differs_MM[a, b]:
                continue
            split = [c for c in columns if a in c and b in c]
            parts = [c - {one} for c in split for one in (a, b)]
            whole = [c for c in columns if c not in split]
            for part in sorted(set(parts), key=lambda c: (-len(c), sorted(c))):
                if not any(part <= c for c in whole):
                    whole.append(part)
            columns = whole
    columns.sort(key=lambda c: sorted(c))
    return ["".join(name(i) for i, c in enumerate(columns) if m in c) for m in range(M)]


def name(index: int) -> str:
    """a to z, then a2, b2, ..."""
    return chr(ord("a") + index % 26) + (str(index // 26 + 1) if index >= 26 else "")
