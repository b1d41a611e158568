"""`./voxarray import-checkpoint`: published or own checkpoints → model folders, once, every weight accounted for."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import List, Optional, Sequence, Tuple

from pipelines.core.errors import DONE, UsageError, VoxarrayError
from pipelines.units import download, importers, known, models
from pipelines.units.importers import KINDS, Wanted

_USAGE = """\
voxarray import-checkpoint NAME…                 published models, by textlesslib's names (--list)
       voxarray import-checkpoint [hubert] FILE --name NAME                      a HuBERT of fairseq
       voxarray import-checkpoint [transformers] FOLDER|OWNER/NAME --name NAME   a HuBERT of transformers
       voxarray import-checkpoint [kmeans] FILE --name NAME [--dense-model MODEL --layer L]
       voxarray import-checkpoint [hifigan] GENERATOR CONFIG --name NAME [--speakers FILE --styles FILE]"""
_EPILOG = """\
A model is imported once, into a folder of its own (in output/models, or where $VOXARRAY_MODELS says), and used by its
name from then on. No code of a checkpoint is run, and nothing of its optimizer's state is kept. The same file again is
no work; another model under a name that is taken is refused without --replace."""


def say(text: str) -> None:
    """One line for the user."""
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


def main(argv: Sequence[str]) -> int:
    """Run the command (without its name); returns the exit status. Raises VoxarrayError."""
    options = _parser().parse_args(list(argv))
    if options.list:
        _list()
        return DONE
    kind, operands = _split(options.operands)
    wanted = _wanted(options)
    published = [_is_published(each) for each in operands] if kind is None else []
    if published and all(published):
        if wanted.name is not None:
            raise UsageError("A published model keeps its name; --name goes with a file of your own.")
        for name in operands:
            _import_published(name, options, wanted)
        return DONE
    importers.run(kind or importers.kind_of(operands), operands, wanted, say)
    return DONE


def _split(operands: List[str]) -> Tuple[Optional[str], List[str]]:
    """The kind, where the first operand says it, and the other operands."""
    kind = operands[0] if operands and operands[0] in KINDS else None
    rest = operands[1:] if kind else operands
    if not rest:
        raise UsageError(
            f"Which {kind or 'model'} is to be imported? Give the name of a published model (`./voxarray "
            "import-checkpoint --list`), or a file with --name NAME (`./voxarray import-checkpoint --help`)."
        )
    return kind, rest


def _is_published(operand: str) -> bool:
    """Whether an operand is the name of a published model, and not a file. UsageError: it is neither."""
    if known.find(operand) is not None and not Path(operand).is_file():
        return True
    if not Path(operand).exists() and "/" not in operand:
        raise UsageError(models.missing([operand]))
    return False


def _import_published(name: str, options: argparse.Namespace, wanted: Wanted) -> None:
    model = known.find(name)
    if model is None:
        raise UsageError(models.missing([name]))
    if models.exists(model.name) and not wanted.replace:
        info = models.describe(model.name)
        if info.source.sha256 == model.files[0].sha256:
            say(f"{info.name}: imported before, from the published bytes; nothing was changed ({info.folder})")
            return
    paths = download.obtain(model, options.given, wanted.download, say)
    importers.published(model, paths, wanted, say)
    download.clean(paths)


def _wanted(options: argparse.Namespace) -> Wanted:
    return Wanted(
        name=options.name,
        licence=options.licence,
        replace=options.replace,
        dense_model=options.dense_model,
        layer=options.layer,
        speakers=options.speakers,
        styles=options.styles,
        normalize=options.normalize,
        download=options.download,
    )


def _list() -> None:
    """The published models, and those that are here."""
    here = {info.name: info for info in models.installed()}
    say(f"models in {models.folder()}:")
    for info in here.values():
        say(f"  {info.name}  ({info.kind}, {info.source.format}, SHA-256 {info.source.sha256[:16]}…)")
    if not here:
        say("  none yet")
    say("published, to be had with `./voxarray import-checkpoint NAME`:")
    for name in known.names():
        model = known.find(name)
        if model is not None and model.name == name:
            say(f"  {'*' if name in here else ' '} {name}  ({model.kind}; licence: {model.licence.split(' (')[0]})")
    say("  (*: here)")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="voxarray import-checkpoint",
        usage=_USAGE,
        description="Import a model for encode, sts and kmeans.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("operands", nargs="*", metavar="WHAT", help="as above; the kind in brackets is seen from the file")
    add("--list", action="store_true", help="the published models, and those that are here")
    add("--name", metavar="NAME", help="what to call it (or the path of the folder to write)")
    add("--from", dest="given", type=Path, metavar="FOLDER", help="where a published model's files lie")
    add("--no-download", dest="download", action="store_false", help="use what is on this machine")
    add("--replace", action="store_true", help="in place of another model of that name")
    add("--dense-model", metavar="MODEL", help="the encoder whose features a k-means was fitted on")
    add("--layer", type=int, metavar="L", help="and its layer (the first is 1)")
    add("--speakers", type=Path, metavar="FILE", help="names of a vocoder's speakers, one a line")
    add("--styles", type=Path, metavar="FILE", help="names of a vocoder's styles, one a line")
    add("--licence", "--license", metavar="TEXT", help="the licence of the weights, for the record")
    group = parser.add_mutually_exclusive_group()
    group.add_argument(
        "--normalize",
        action="store_true",
        default=None,
        help="transformers: bring waveforms to mean 0 and variance 1 (default: as preprocessor_config.json says)",
    )
    group.add_argument("--no-normalize", dest="normalize", action="store_false", default=None, help="or do not")
    return parser


def run(argv: Sequence[str]) -> int:
    """`main`, its errors told on the standard error."""
    try:
        return main(argv)
    except VoxarrayError as error:
        sys.stderr.write(f"voxarray: {error}\n")
        return error.exit_status


if __name__ == "__main__":
    sys.exit(run(sys.argv[1:]))
