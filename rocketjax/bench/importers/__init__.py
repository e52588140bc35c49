"""Public data sets, each in its source's own schema, into a benchmark's folder: `rocketjax import NAME PATH OUT`."""

import difflib
import os
import shutil
from pathlib import Path

import msgspec

from rocketjax import __version__
from rocketjax.bench.importers.source import MANIFEST, Draft, Source, place, publish, write_manifest
from rocketjax.bench.importers.table import GENERIC_ITEM, IMPORTERS, Importer
from rocketjax.bench.read import load_benchmark
from rocketjax.errors import RocketError

__all__ = ["GENERIC_ITEM", "IMPORTERS", "Imported", "Importer", "import_benchmark"]


class Imported(msgspec.Struct, frozen=True):
    """What an import wrote, counted."""

    name: str
    sessions: int
    models: int
    responses: int
    items: int
    """Checklist items over all sessions."""
    yes: int
    """Item labels above 0.5."""
    no: int
    """Item labels below 0.5."""
    undecided: int
    """Item labels of exactly 0.5; N/A is no label."""
    scores: int
    left_out: dict[str, int]
    """How much could not be used, by reason; the reasons are at `Draft` and at each importer."""


def import_benchmark(
    name: str,
    path: str | os.PathLike[str],
    out: str | os.PathLike[str],
    *,
    item: str | None = None,
    overwrite: bool = False,
) -> Imported:
    """Imports the public data set `name` (a key of IMPORTERS) from a file or folder of its source into folder `out`.

    `item` is the one checklist item of sets that have none of their own, GENERIC_ITEM by default. `out` is written
    whole or not at all, reads with `load_benchmark`, and holds an import.json with the source files' sha256, the
    licence and these counts; an existing one is replaced only with `overwrite` and only if it is an import. Raises
    RocketError with file, line and field for rows that are not as the source publishes them, for files that lack,
    and for an `item` where the set's checklists are its own.
    """
    if name not in IMPORTERS:
        close = difflib.get_close_matches(name, IMPORTERS, n=1, cutoff=0.5)
        guess = f"; did you mean {close[0]!r}?" if close else "."
        raise RocketError(f"no importer for {name!r}{guess} Known: {', '.join(IMPORTERS)}")
    importer = IMPORTERS[name]
    if item is not None and not importer.generic:
        raise RocketError(f"{name}: its checklists are its own, so an item cannot be given")
    if item is not None and (not item.strip() or len(item.strip().splitlines()) > 1):
        raise RocketError(f"{name}: the item {item!r} is not one line of text")
    source, draft, target = Source(path), Draft(), Path(os.path.abspath(os.fsdecode(out)))
    part = place(target, overwrite)
    try:
        importer.run(source, draft, GENERIC_ITEM if item is None else item)
        if not any(draft.responses.values()):
            reasons = ", ".join(f"{n} {reason}" for reason, n in sorted(draft.left_out.items()))
            raise RocketError(f"{source.path}: nothing to import; left out: {reasons or 'nothing'}")
        draft.write(part)
        given = [p for by in draft.judgments.values() for answers in by.values() for p in answers if p is not None]
        imported = Imported(
            name=name,
            sessions=len(draft.queries),
            models=len(draft.responses),
            responses=sum(map(len, draft.responses.values())),
            items=sum(map(len, draft.checklists.values())),
            yes=sum(p > 0.5 for p in given),
            no=sum(p < 0.5 for p in given),
            undecided=sum(p == 0.5 for p in given),
            scores=sum(map(len, draft.scores.values())),
            left_out=dict(sorted(draft.left_out.items())),
        )
        counts = msgspec.to_builtins(imported)
        left_out = counts.pop("left_out")
        manifest = {
            "name": counts.pop("name"),
            "description": importer.description,
            "licence": importer.licence,
            "item": (GENERIC_ITEM if item is None else item) if importer.generic else None,
            "sources": dict(sorted(source.sha256.items())),
            "counts": counts,
            "left_out": left_out,
            "rocketjax": __version__,
        }
        write_manifest(part / MANIFEST, manifest)
        try:
            load_benchmark(part)  # what was written must be readable before it takes the name
        except RocketError as error:
            raise RocketError(f"{name}: the rows make no benchmark: {error}".replace(str(part), str(target))) from None
        publish(part, target)
    finally:
        shutil.rmtree(part, ignore_errors=True)
    return imported
