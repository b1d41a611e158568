"""The published models that voxarray knows by textlesslib's names: their files, where they are, and their licences.

Names: a dense model (`mhubert-base-vp_mls_cv_8lang`), a quantizer (`DENSE-kmeans-2000`, `DENSE-kmeans-expresso-2000`),
a vocoder (`QUANTIZER-hifigan`). Two dense names may be two layers of one file; it is then stored under the first.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Dict, List, NamedTuple, Optional, Tuple

from pipelines.units import published

_MIT = "MIT (fairseq's licence, which covers its pre-trained models)"
_UNSTATED = "none stated for these weights (they are published with textlesslib, whose code is MIT)"
_NON_COMMERCIAL = (
    "none stated for these weights; they were trained on Expresso, which is CC BY-NC 4.0: take them as non-commercial"
)
_PARAMETERS_OF_A_VOCODER = 14_500_000
_WIDTH = 768


class File(NamedTuple):
    """One published file. `bytes` is approximate, None where it is not known."""

    role: str
    name: str
    url: str
    sha256: str
    bytes: Optional[int] = None


class Known(NamedTuple):
    """One published model. `dense`: the dense name it was made for (quantizers); `quantizer` (vocoders)."""

    name: str
    kind: str
    files: Tuple[File, ...]
    licence: str
    dense: Optional[str] = None
    layer: Optional[int] = None
    hop: int = 320
    quantizer: Optional[str] = None

    def instructions(self) -> str:
        """What a user without this model does, in a few sentences."""
        files = "; ".join(f"{each.url} ({_size(each.bytes)}) as {each.name}" for each in self.files)
        return (
            f"{self.name} is published: `./voxarray import-checkpoint {self.name}` downloads and imports it. Where "
            f"there is no internet, bring {files} in a folder, and give `./voxarray import-checkpoint {self.name} "
            f"--from FOLDER`. Licence: {self.licence}."
        )


def _size(count: Optional[int]) -> str:
    if count is None:
        return "size not stated"
    return f"about {count / 1e9:.1f} GB" if count >= 1e9 else f"about {max(count / 1e6, 0.1):.1f} MB"


def find(name: str) -> Optional[Known]:
    """The published model that `name` means; a dense name gives the model whose file it is."""
    return _models().get(stored_under(name))


def names(kind: Optional[str] = None) -> List[str]:
    """All names, of one kind or of every kind; the dense names of layers included."""
    found = [each.name for each in _models().values() if kind in (None, each.kind)]
    if kind in (None, "hubert"):
        found += [name for name in published.DENSE if name not in found]
    return found


def stored_under(name: str) -> str:
    """The name of the model folder for `name`: `hubert-base-ls960-layer-9` is a layer of `hubert-base-ls960`."""
    return published.DENSE[name][0] if name in published.DENSE else name


def layer_of(name: str) -> Optional[int]:
    """The layer that a dense name stands for (the first is 1), None for any other name."""
    return published.DENSE[name][1] if name in published.DENSE else None


def by_sha256(digest: str) -> Optional[Known]:
    """The published model whose weights have this SHA-256."""
    return next((each for each in _models().values() if each.files[0].sha256 == digest), None)


def unsupported(name: str) -> Optional[str]:
    """Why a model of textlesslib is not supported; None for names that are not such a model's."""
    if name.startswith("cpc-"):
        return (
            f"{name} belongs to CPC, which voxarray does not compute: it has HuBERT encoders and log-mel features. "
            "Use textlesslib itself for it, or HuBERT's units, as hubert-base-ls960-kmeans-100."
        )
    if "tacotron" in name or name == "waveglow":
        return (
            f"{name} belongs to Tacotron 2 with WaveGlow, which voxarray does not compute: it has unit HiFi-GAN and "
            "Griffin-Lim. Use textlesslib itself for it, or units with a vocoder, as "
            "hubert-base-ls960-layer-9-kmeans-500 with hubert-base-ls960-layer-9-kmeans-500-hifigan."
        )
    return None


@lru_cache(maxsize=1)
def _models() -> Dict[str, Known]:
    every = [*map(_hubert, published.HUBERT), *map(_quantizer, published.QUANTIZERS)]
    every += [*map(_expresso, published.EXPRESSO_VOCODERS), _twist()]
    return {each.name: each for each in every}


def _hubert(row: Tuple[str, str, str]) -> Known:
    name, path, digest = row
    # Adam's two moments lie in the file beside the weights: 95 million parameters, three times four bytes.
    size = 1_140_000_000 if name == "hubert-base-ls960" else None
    licence = _UNSTATED if name in ("mhubert-base-vp_mls_cv_8lang", "mhubert-base-25hz") else _MIT
    file = File("weights", path.rsplit("/", 1)[-1], f"{published.BASE}/{path}", digest, size)
    return Known(name, "hubert", (file,), licence, hop=published.HOPS.get(name, 320))


def _quantizer(row: Tuple[str, str, str, str]) -> Known:
    name, path, file_name, digest = row
    match = re.fullmatch(r"(.+)-kmeans(?:-expresso)?-(\d+)", name)
    dense, clusters = (match[1], int(match[2])) if match else (name, 0)
    file = File("weights", file_name, f"{published.BASE}/{path}", digest, clusters * _WIDTH * 4)
    licence = _NON_COMMERCIAL if "expresso" in name else _UNSTATED
    base, layer = published.DENSE[dense]
    return Known(name, "codebook", (file,), licence, dense, layer, published.HOPS.get(base, 320))


def _expresso(row: Tuple[str, str, str, str]) -> Known:
    name, stem, generator, config = row
    folder = f"hifigan_expresso_lj_vctk_{stem}"
    parts = (
        ("weights", "generator.pt", generator, _PARAMETERS_OF_A_VOCODER * 4),
        ("config", "config.json", config, 2_000),
        ("speakers", "speakers.txt", published.EXPRESSO_SPEAKERS, 2_000),
        ("styles", "styles.txt", published.EXPRESSO_STYLES, 1_000),
    )
    files = tuple(
        File(role, f"{folder}_{file}", f"{published.BASE}/{published.EXPRESSO}/{folder}/{file}", digest, size)
        for role, file, digest, size in parts
    )
    return Known(name, "hifigan", files, _NON_COMMERCIAL, quantizer=name[: -len("-hifigan")])


def _twist() -> Known:
    name, generator, config = published.TWIST_VOCODER
    files = tuple(
        File(role, path.rsplit("/", 1)[-1], f"{published.BASE}/{path}", digest)
        for role, (path, digest) in (("weights", generator), ("config", config))
    )
    return Known(name, "hifigan", files, _UNSTATED, hop=640, quantizer=name[: -len("-hifigan")])
