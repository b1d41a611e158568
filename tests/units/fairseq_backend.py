"""Run by the Python of the environment `sts`: the reference backend of voxarray, and fairseq's vocoder without it.

    python fairseq_backend.py JOB.json OUT.npz

JOB: `encode` {variant: parameters of a run}, `waves` {variant: {name: path}}, `checkpoints` [path] to load strictly,
`units` a .npy, `speak` {name: parameters}, `plain` {name: folder of a CodeHiFiGAN without styles}. OUT has the arrays,
and `faults`.
"""

from __future__ import annotations

import json
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import soundfile
import torch

from pipelines.core.errors import VoxarrayError
from pipelines.units.reference import ReferenceEncoder, ReferenceSynthesiser
from pipelines.units.reference_models import ReferenceHubert, quiet


def main(job: dict, out: Path) -> None:
    torch.set_num_threads(1)
    arrays, faults = {}, {}
    for variant, parameters in job["encode"].items():
        coder = ReferenceEncoder.load(parameters)
        waves = {name: soundfile.read(path, dtype="float32")[0] for name, path in job["waves"][variant].items()}
        with ThreadPoolExecutor(2) as pool:
            found = dict(zip(waves, pool.map(coder.encode, [[wave] for wave in waves.values()])))
        arrays.update({f"units/{variant}/{name}": units for name, [units] in found.items()})
        arrays[f"shape/{variant}"] = np.array([coder.hop, coder.vocabulary_size])
    for path in job["checkpoints"]:
        try:
            model = ReferenceHubert(path)
            arrays[f"hop/{path}"] = np.array([model.hop, model.shortest, model.normalize])
        except VoxarrayError as error:
            faults[path] = str(error)
    units = np.load(job["units"])
    for name, parameters in job["speak"].items():
        voice = ReferenceSynthesiser.load(parameters)
        arrays[f"speech/{name}"] = voice.speak([units, units[:0]])[0]
    for name, folder in job["plain"].items():
        arrays[f"plain/{name}"] = plain(Path(folder), units)
    np.savez(out, faults=json.dumps(faults), **arrays)


@torch.inference_mode()
def plain(folder: Path, units: np.ndarray) -> np.ndarray:
    """By fairseq alone."""
    with quiet():
        from fairseq.models.text_to_speech.codehifigan import CodeGenerator

        generator = CodeGenerator(json.loads((folder / "config.json").read_text()))
        generator.load_state_dict(torch.load(folder / "generator.pt")["generator"])
        generator.eval().remove_weight_norm()
    chosen = {"spkr": torch.tensor([[1]])} if generator.multispkr else {}
    return generator(code=torch.from_numpy(units.astype(np.int64))[None], **chosen).reshape(-1).numpy()


if __name__ == "__main__":
    main(json.loads(Path(sys.argv[1]).read_text()), Path(sys.argv[2]))
