"""What the engine asks of a pipeline: a description, a processor for batches of items, and a consumer of the merge."""

from __future__ import annotations

import argparse
from dataclasses import dataclass, field
from pathlib import Path
from typing import (
    TYPE_CHECKING,
    Any,
    Callable,
    Iterator,
    Mapping,
    NamedTuple,
    Optional,
    Protocol,
    Sequence,
    Union,
    runtime_checkable,
)

import msgspec

from pipelines.core import environment

if TYPE_CHECKING:
    from pipelines.core.manifest import Item
    from pipelines.core.plan import Plan

Parameters = Mapping[str, Any]
"""The result-changing parameters of a run, as JSON values."""

Result = Union[Mapping[str, Any], Exception]
"""What became of one item: the fields it adds (JSON values), or why it could not be processed."""


@dataclass(frozen=True)
class Resources:
    """What one task may use: processor cores, GPUs, memory in MB (None: not stated)."""

    cpus: int = 1
    gpus: int = 0
    memory_mb: Optional[int] = None


class Processor(Protocol):
    """A loaded model. `process` is called from up to `concurrency` threads at once."""

    concurrency: int
    batch_items: int
    """A batch holds at most this many items …"""
    batch_seconds: float
    """… and stops growing once it holds this many seconds of audio (items of unknown duration count 0)."""

    def process(self, items: Sequence[Item]) -> Sequence[Result]:
        """One result an item, in their order. Must not depend on which items share the batch."""
        ...

    def close(self) -> None:
        """Free what was loaded."""
        ...


class ErrorInfo(NamedTuple):
    """Why an item was quarantined."""

    type: str
    message: str
    signature: str


class OutputFile(msgspec.Struct, frozen=True):
    """One file that a merge published."""

    path: str
    sha256: str
    bytes: int
    rows: int
    backup: Optional[str] = None
    """Where what stood there before is kept; None where nothing did that had to be."""


class Output(Protocol):
    """The consumer of a merge: gets every item once, in manifest order, then publishes whole files or nothing.

    It may have `notes`, sentences for the user, which end up in the receipt and in the merge's last words.
    """

    def open(self) -> None:
        """Open private files."""
        ...

    def write(self, item: Item, result: Optional[bytes], error: Optional[ErrorInfo]) -> None:
        """Take one item: its result (a JSON object), or its error, or neither (missing; partial merges only)."""
        ...

    def publish(self) -> list[OutputFile]:
        """Give the private files their final names."""
        ...

    def abandon(self) -> None:
        """Remove the private files."""
        ...


@runtime_checkable
class RowsOutput(Output, Protocol):
    """An output that needs no more of an item than its row, and takes many at once instead of one by `write`."""

    def write_rows(self, rows: Sequence[bytes], results: Sequence[Optional[bytes]]) -> None:
        """Take the rows of items that follow each other, and their results (None: failed or missing)."""
        ...


def _no_arguments(_: argparse.ArgumentParser) -> None:
    """A pipeline without options of its own."""


def _no_parameters(_: argparse.Namespace) -> Parameters:
    return {}


@dataclass(frozen=True)
class Pipeline:
    """One kind of work. See "Your own pipeline" in TECHNICAL.md."""

    name: str
    summary: str
    load: Callable[[Parameters, Resources], Processor]
    environment: str = ""
    """Name of the environment under `envs/`; empty: the pipeline's own name."""
    environments: Mapping[str, str] = field(default_factory=dict)
    """Other environments, by the parameter and value that ask for them: `{"backend textless": "sts"}`."""
    source: str = "manifest"
    """What the command's first argument is: "manifest", whose rows are the items; or "directory", or "listed" (a
    file of any kind), of which `list_items` makes the items."""
    operand: tuple[str, str] = ("MANIFEST", "JSONL manifest: audio_filepath and duration on every line")
    """What the command's first argument is called, and its help; a directory has its own."""
    requires: tuple[str, ...] = ("audio_filepath", "duration")
    """Fields every manifest row must have."""
    add_arguments: Callable[[argparse.ArgumentParser], None] = _no_arguments
    """Adds the options that change results, and only those."""
    parameters: Callable[[argparse.Namespace], Parameters] = _no_parameters
    """Validates those options and returns them with every default filled in."""
    list_items: Optional[Callable[[Path, Parameters], Iterator[dict[str, Any]]]] = None
    """Streams the rows of a directory, or of what else items are made of, in any order."""
    outputs: Optional[Callable[[Plan], Output]] = None
    """The consumer of the merge; None: the manifest itself, with the result's fields added."""
    adds: tuple[str, ...] = field(default=())
    """Fields that the output adds to the manifest that the items come from."""
    results: Mapping[str, Callable[[Plan], str]] = field(default_factory=dict)
    """What a run leaves, by name: paths that a chain's later steps refer to as `{step.name}`. Without it, the
    manifest alone, as `{step.manifest}`."""
    merge_in_environment: bool = False
    """Whether `outputs` needs the pipeline's environment; the merge then never runs in the launcher's."""
    output_name: Optional[Callable[[Item, Parameters], Optional[str]]] = None
    """Where a pipeline writes a file for each item: its name, or None for no file. ItemError: there can be none.

    Asked for every row of a manifest before anything is launched; two items of one name are refused."""
    is_whole: Optional[Callable[[bytes], bool]] = None
    """Where a pipeline writes a file for each item: whether the file of a result (JSON) is still what was written.

    An item whose file is not counts as missing."""
    resumes: bool = False
    """Whether an item that was interrupted goes on where it was (a training). Vanished tasks are then no evidence
    against it, and the processor's `stop()`, called in a signal handler, ends `process` soon with `Unfinished`."""
    needs: Optional[Callable[[argparse.Namespace], Optional[Sequence[str]]]] = None
    """The command line (pipeline, operands, options) whose run must be complete before this one can start, if any."""

    foresee: Optional[Callable[[argparse.Namespace], None]] = None
    """Checks what options ask for whatever the source will hold: models that must be there. Raises UsageError.

    Asked before a chain begins, whose earlier steps have yet to make the source."""

    @property
    def lists(self) -> bool:
        """Whether the items are made of the source, and not its own rows."""
        return self.source != "manifest"

    @property
    def extends(self) -> bool:
        """Whether a run adds fields to the manifest that it was given; no other run may read that meanwhile."""
        return not self.lists and (self.outputs is None or bool(self.adds))

    def results_of(self, plan: Plan) -> Mapping[str, str]:
        """What the run of that plan leaves, by name."""
        return {name: leaves(plan) for name, leaves in self.results.items()} or {"manifest": plan.manifest}

    def environment_for(self, parameters: Parameters) -> str:
        """The environment this pipeline runs in with these parameters."""
        return environment.chosen(self.environment or self.name, self.environments, parameters)
