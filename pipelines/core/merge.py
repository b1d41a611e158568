"""The merge: parts → outputs, in manifest order, with the proof that every item is accounted for.

Each part is sorted, so a merge is one pass over the manifest beside the merged stream of all parts; memory grows with
the number of parts that overlap, not with rows.
"""

from __future__ import annotations

import glob
import hashlib
import logging
import os
from contextlib import suppress
from itertools import chain
from pathlib import Path
from typing import Optional

import msgspec

from pipelines.core import claims, clock, lock, manifest, paths, store, stream
from pipelines.core.errors import LISTED, IncompleteRunError, ManifestChangedError, VoxarrayError, listed, plain
from pipelines.core.launches import LaunchRecord
from pipelines.core.manifest import Identity
from pipelines.core.output import ManifestOutput, published_by
from pipelines.core.pipeline import Output, OutputFile
from pipelines.core.run import Run
from pipelines.core.scan import Scan
from pipelines.core.tally import Cause, RowMismatch, Tally

log = logging.getLogger(__name__)


class Receipt(msgspec.Struct, frozen=True):
    """`merged.json`: the proof. items = merged + quarantined + missing, and every row read is explained."""

    run: str
    time: str
    manifest: Identity
    items: int
    merged: int
    quarantined: int
    missing: int
    partial: bool
    parts: int
    rows_read: int
    spare: int
    differing: int
    outside: int
    outputs: list[OutputFile]
    signatures: list[Cause]
    notes: list[str] = []
    """What else the output had to say, and whose files the merge replaced."""
    launch: Optional[int] = None
    """The last launch whose parts it knew of."""


def receipt_path(run: Run) -> Path:
    """Where the receipt of a run's last merge lies."""
    return run.folder / "merged.json"


def last_receipt(run: Run) -> Optional[Receipt]:
    """The receipt of the last merge, if there was one."""
    try:
        return msgspec.json.decode(receipt_path(run).read_bytes(), type=Receipt)
    except (FileNotFoundError, msgspec.MsgspecError):
        return None


def merge(run: Run, partial: bool = False, if_due: bool = False, wait_s: float = 3600.0) -> Receipt:
    """Merge a run. Raises `IncompleteRunError` where items are missing and not `partial`; idempotent.

    `if_due`: return the last receipt where nothing has changed since (many tasks may end at once).
    """
    path, what = _lock_of(run)
    with lock.held(path, wait_s, what):
        last = last_receipt(run) if if_due else None
        if last is not None and _is_current(run, last):
            return last
        return _merge(run, partial)


def _lock_of(run: Run) -> tuple[Path, str]:
    """The lock of a merge, and what it is on: a manifest that several runs may add to, else the run alone."""
    if not run.pipeline.extends:
        return run.folder / "merge.lock", f"The merge of {run.id}"
    place = hashlib.sha256(os.fsencode(os.path.realpath(run.manifest))).hexdigest()[:16]
    return paths.home() / "output" / "locks" / f"{place}.lock", f"The merge into {run.manifest}"


def _is_current(run: Run, receipt: Receipt) -> bool:
    """Whether manifest and parts are those of the receipt, as sizes and times tell, and its outputs are there.

    Outputs may have changed: the next pipeline adds its fields to a manifest that this one wrote. But another run of
    this pipeline may have published files of the same names; what stands there then are its results.
    """
    stat = run.manifest.stat()
    files = [file.path for file in receipt.outputs]
    return (
        not receipt.partial
        and (stat.st_size, stat.st_mtime_ns) == (receipt.manifest.size, receipt.manifest.mtime_ns)
        and receipt.parts == sum(1 for _ in run.part_files())
        and all(Path(file).exists() for file in files)
        and not claims.taken(run, files)
    )


def _merge(run: Run, partial: bool) -> Receipt:
    launch = max(run.launch_numbers(), default=None)
    count = sum(1 for _ in run.part_files())
    with run.scan() as scan:
        output = _output(run)
        try:
            tally = Tally(run.pardoned_before(), run.pipeline.is_whole)
            output.open()
            _consume(run, scan, tally, output)
            try:
                manifest.refuse_changed(run.manifest, scan.identity, "merged")
            except ManifestChangedError:
                # Where locks do not hold, a twin may have merged the same meanwhile.
                if not getattr(output, "stands", lambda: False)():
                    raise
            _prove(run, scan.identity, tally)
            if tally.missing and not partial:
                raise _incomplete(run, scan.identity, tally)
            files = output.publish()
        except BaseException:
            output.abandon()
            raise
        notes = [*getattr(output, "notes", ()), *claims.replaced(run, files)]
        receipt = _receipt(run, _identity_after(run, scan.identity), tally, count, files, notes)
        receipt = msgspec.structs.replace(receipt, launch=launch)
        store.write_json(receipt_path(run), receipt)
        _tidy(run, files)
    return receipt


def _consume(run: Run, scan: Scan, tally: Tally, output: Output) -> None:
    try:
        tally.consume(manifest.lines(run.manifest), stream.streams(run, scan), output)
    except (RowMismatch, ValueError, msgspec.MsgspecError) as error:
        manifest.refuse_changed(run.manifest, scan.identity, "merged")
        raise VoxarrayError(
            f"Results of {run.id} do not fit the items of {run.manifest} ({error}), though the manifest is the one "
            "that was dealt. Nothing was published and the parts are untouched. Please report this with the run's "
            "folder."
        ) from error


def _output(run: Run) -> Output:
    if run.pipeline.outputs is not None:
        return run.pipeline.outputs(run.plan)
    return ManifestOutput(run.manifest, published_by(run.id))


def _identity_after(run: Run, identity: Identity) -> Identity:
    """The manifest's identity with its present size and time (a merge into the manifest itself changes those)."""
    stat = run.manifest.stat()
    return msgspec.structs.replace(identity, size=stat.st_size, mtime_ns=stat.st_mtime_ns)


def _prove(run: Run, identity: Identity, tally: Tally) -> None:
    """Check the sums that must hold; a violation is a defect (ours or the file system's) and stops the merge."""
    accounted = tally.merged + tally.quarantined + tally.missing
    explained = tally.merged + tally.quarantined + tally.spare + tally.outside
    if accounted != identity.items or tally.items != identity.items or explained != tally.rows_read:
        raise VoxarrayError(
            f"The merge of {run.id} does not add up: {identity.items:,} items, {tally.merged:,} merged, "
            f"{tally.quarantined:,} quarantined, {tally.missing:,} missing; {tally.rows_read:,} rows read, "
            f"{explained:,} explained. Nothing was published and the parts are untouched. "
            "Please report this with the run's folder."
        )


def _receipt(  # noqa: PLR0917 - what it is made of
    run: Run, identity: Identity, tally: Tally, count: int, files: list[OutputFile], notes: list[str]
) -> Receipt:
    return Receipt(
        run=run.id,
        time=clock.iso(),
        manifest=identity,
        items=tally.items,
        merged=tally.merged,
        quarantined=tally.quarantined,
        missing=tally.missing,
        partial=tally.missing > 0,
        parts=count,
        rows_read=tally.rows_read,
        spare=tally.spare,
        differing=tally.differing,
        outside=tally.outside,
        outputs=files,
        signatures=sorted(tally.causes.values(), key=lambda cause: -cause.count)[:100],
        notes=notes,
    )


def changed_since(record: LaunchRecord, identity: Identity) -> str:
    """Name a change of the manifest since a launch; empty if there was none."""
    if record.manifest.order == identity.order:
        return ""
    return (
        f"The manifest changed since launch {record.number} was dealt ({record.manifest.items:,} items then, "
        f"{identity.items:,} now). "
    )


def _incomplete(run: Run, identity: Identity, tally: Tally) -> IncompleteRunError:
    changed = "".join(changed_since(record, identity) for record in run.records()[-1:])
    return IncompleteRunError(
        f"{tally.missing:,} of {tally.items:,} items of {run.id} are not done yet, so nothing was merged: "
        f"{listed(map(plain, tally.missing_examples), tally.missing)}. {changed}"
        f"{how_to_redo(run)} A merge of what there is: `./voxarray merge {run.id} --partial`."
    )


def how_to_redo(run: Run) -> str:
    """The command that redoes what is missing: the array's own, where plain sbatch launched it, else `retry`."""
    records = run.records()
    plain = [record for record in records if record.cluster == "sbatch"]
    if records and plain and records[-1].cluster == "sbatch":
        unfinished = [task for task in range(plain[-1].tasks) if not _ended(run, plain, task)]
        if unfinished:
            array = ",".join(map(str, unfinished[:50])) + ("…" if len(unfinished) > 50 else "")
            return (
                f"Redo the tasks that did not end with `sbatch --array={array} slurm/{run.plan.pipeline}.slurm …` "
                f"(the rest of the line as before), or everything missing with `./voxarray retry {run.id}`."
            )
    return f"Redo what is missing with `./voxarray retry {run.id}`."


def _ended(run: Run, records: list[LaunchRecord], task: int) -> bool:
    """Whether the task ended in a launch that was dealt as the last one was."""
    name, last = f"{paths.task_name(task)}.end.json", records[-1]
    alike = [record for record in records if _dealt(record) == _dealt(last)]
    return any((run.state_folder(record.number) / name).exists() for record in alike)


def _dealt(record: LaunchRecord) -> tuple[int, str, str]:
    return record.tasks, record.sharding, record.manifest.order


def _tidy(run: Run, files: list[OutputFile]) -> None:
    """Remove private files that dead attempts at this run, or at these outputs, left."""
    launched = chain((run.folder / "parts").glob("launch-*"), (run.folder / "state").glob("launch-*"))
    left = [path for folder in chain([run.folder], launched) for path in folder.glob(".*.tmp")]
    for path in (Path(os.path.realpath(file.path)) for file in files):
        left += path.parent.glob(f".{glob.escape(path.name)}.*.tmp")
    for path in left:
        with suppress(OSError):
            if store.is_abandoned(path):
                path.unlink()


def summary(receipt: Receipt) -> str:
    """The merge in a few lines for people: the proof, the causes of failure, the files."""
    proof = f"{receipt.merged:,} merged + {receipt.quarantined:,} quarantined + {receipt.missing:,} missing"
    lines = [f"{receipt.items:,} items = {proof}{' (PARTIAL merge)' if receipt.partial else ''}."]
    lines += [
        f"  {cause.count:,} × {plain(cause.message.splitlines()[0][:160])} (for example {plain(cause.example)})"
        for cause in receipt.signatures[:LISTED]
    ]
    if receipt.quarantined:
        lines.append(f"  Quarantined items are tried again by `./voxarray retry {receipt.run} --quarantined`.")
    if receipt.outside:
        lines.append(
            f"  {receipt.outside:,} results belong to items that are no longer in the manifest; they are kept."
        )
    if receipt.differing:
        lines.append(f"  {receipt.differing:,} items were done twice with results that differ; the first was taken.")
    lines += [f"  {plain(note)}" for note in receipt.notes]
    lines += [f"  {file.path} ({file.rows:,} rows)" for file in receipt.outputs]
    return "\n".join(lines)
