"""The programs that `units_lengths` and `units_rest` compare; files are read once, before time is taken.

They are started as those of `units_programs`, and answer as those do.
"""

from __future__ import annotations

import functools
import sys
from pathlib import Path
from typing import Any, Callable, Dict, List

import numpy as np

from tests.benchmarks.units_programs import Program, Work, _joined, _read, serve

_load = functools.cache(np.load)
_wave = functools.cache(_read)


def start(python: Path, name: str, settings: Path) -> Program:
    """One of these programs."""
    return Program(python, name, settings, script=__file__)


def _each(compute: Callable[[Any], Any], read: Callable[[str], Any] = _wave) -> Work:
    """File by file."""
    return lambda files: _joined(compute(read(path)) for path in files)


# -- features of HuBERT's layer `layer`


def native_features(settings: Dict[str, Any]) -> Work:
    """`pipelines.units.hubert`."""
    import torch

    from pipelines.units import models
    from pipelines.units.hubert import Hubert

    model = Hubert.load(models.describe("base", "hubert"), settings["layer"])
    infer = torch.inference_mode()(model.forward)
    return _each(lambda wave: infer(torch.from_numpy(wave)[None], None)[0].numpy())


def fairseq_features(settings: Dict[str, Any]) -> Work:
    """fairseq's model, as `pipelines.units.reference` calls it."""
    from pipelines.units.reference_models import ReferenceHubert

    model = ReferenceHubert(settings["checkpoint"])
    return _each(lambda wave: model.features(wave, settings["layer"]))


def transformers_features(settings: Dict[str, Any]) -> Work:
    """transformers' model of the same size with its own random weights, without the layers above."""
    import torch
    from transformers import HubertConfig, HubertModel

    torch.manual_seed(0)
    model = HubertModel(HubertConfig(num_hidden_layers=settings["layer"])).eval()
    infer = torch.inference_mode()(model.forward)
    return _each(lambda wave: infer(torch.from_numpy(wave)[None]).last_hidden_state[0].numpy())


def matrix_product(settings: Dict[str, Any]) -> Work:
    """Not an encoder: products of the largest layer's shape, with 1500 frames (30 s), for the core's speed."""
    import torch

    frames, weights = torch.randn(1500, 768), torch.randn(768, 3072)

    def work(files: List[str]) -> Any:
        for _ in range(settings["products"]):
            torch.mm(frames, weights)
        return len(files), b""

    return work


# -- a vocoder


def plain_vocoder(settings: Dict[str, Any]) -> Work:
    """CodeHiFiGAN by the book, as the tests have it, weight norm folded."""
    import torch

    from pipelines.units.vocoder import folded
    from tests.units.test_vocoder import plain

    path = Path(settings["checkpoint"]).parent / "generator.pt"
    weights = folded(torch.load(path)["generator"])

    def speak(units: Any) -> Any:
        with torch.inference_mode():
            return plain(weights, torch.from_numpy(units.astype(np.int64)), 1, 1).numpy()

    return _each(speak, _load)


# -- log-mel bands


def native_logmel(_settings: Dict[str, Any]) -> Work:
    """`pipelines.units.logmel`."""
    import torch

    from pipelines.units.logmel import LogMel

    model = LogMel()
    return _each(lambda wave: model(torch.from_numpy(wave)[None])[0].numpy())


def torchaudio_logmel(_settings: Dict[str, Any]) -> Work:
    """torchaudio's Kaldi filter bank."""
    import torch
    from torchaudio.compliance.kaldi import fbank

    return _each(lambda wave: fbank(torch.from_numpy(wave)[None], frame_shift=20.0, num_mel_bins=80).numpy())


def transformers_logmel(_settings: Dict[str, Any]) -> Work:
    """transformers' spectrogram, which its feature extractors use, with Kaldi's settings."""
    from transformers.audio_utils import mel_filter_bank, spectrogram, window_function

    bank = mel_filter_bank(257, 80, 20, 8000, 16_000, norm=None, mel_scale="kaldi", triangularize_in_mel_space=True)
    window = window_function(400, "povey", periodic=False)
    how = {"power": 2.0, "center": False, "preemphasis": 0.97, "mel_floor": 2.0**-23, "log_mel": "log"}
    return _each(
        lambda wave: spectrogram(wave, window, 400, 320, 512, mel_filters=bank, remove_dc_offset=True, **how).T
    )


# -- nearest centroids: files are the frames, and the centroids


def native_nearest(_settings: Dict[str, Any]) -> Work:
    """`pipelines.units.codebook`."""
    import torch

    from pipelines.units.codebook import Codebook

    book = functools.cache(lambda path: Codebook(torch.from_numpy(_load(path))))
    return lambda files: _units(book(files[1]).assign(torch.from_numpy(_load(files[0]))).numpy())


def torch_nearest(_settings: Dict[str, Any]) -> Work:
    """One product and the least of each row, ties and rounding as they fall."""
    import torch

    @functools.cache
    def book(path: str) -> Any:
        centroids = torch.from_numpy(_load(path))
        return centroids.square().sum(dim=1), centroids.t().contiguous()

    def work(files: List[str]) -> Any:
        squares, columns = book(files[1])
        scores = torch.addmm(squares, torch.from_numpy(_load(files[0])), columns, alpha=-2)
        return _units(scores.argmin(dim=1).numpy())

    return work


def sklearn_nearest(_settings: Dict[str, Any]) -> Work:
    """scikit-learn's predict, which textlesslib calls."""
    from sklearn.cluster import MiniBatchKMeans

    @functools.cache
    def book(path: str) -> Any:
        centroids = _load(path)
        model = MiniBatchKMeans(n_clusters=len(centroids), n_init=1)
        model.cluster_centers_, model._n_threads, model.n_features_in_ = centroids, 1, centroids.shape[1]
        return model

    return lambda files: _units(book(files[1]).predict(_load(files[0])))


def _units(labels: Any) -> Any:
    return len(labels), labels.astype(np.uint16).tobytes()


# -- log-mel units back to sound; the sound is kept beside the units


def native_inversion(settings: Dict[str, Any]) -> Work:
    """`pipelines.units.griffin_lim`: 16 iterations from phases that were guessed."""
    import torch

    from pipelines.units.codebook import Codebook
    from pipelines.units.synthesis import GriffinLimVoice

    voice = GriffinLimVoice(Codebook(torch.from_numpy(np.load(settings["bands"]))), "made")
    return lambda files: _joined(_kept(path, "native", voice.speak([_load(path)])[0]) for path in files)


def torchaudio_16(settings: Dict[str, Any]) -> Work:
    """As many iterations."""
    return _torchaudio(16)


def torchaudio_60(settings: Dict[str, Any]) -> Work:
    """As many as are usual."""
    return _torchaudio(60)


def _torchaudio(iterations: int) -> Work:
    """torchaudio's fast Griffin-Lim of the same magnitudes (beside the units): random phases, its own momentum."""
    import torch
    from torchaudio.functional import griffinlim

    torch.manual_seed(0)
    window = torch.hann_window(400)

    def speak(path: str) -> Any:
        magnitudes = torch.from_numpy(_load(f"{path[:-4]}.magnitudes.npy")).t()
        sound = griffinlim(magnitudes, window, 512, 80, 400, 1.0, iterations, 0.99, None, rand_init=True)
        return _kept(path, str(iterations), sound.clamp(-1, 1).numpy())

    return lambda files: _joined(speak(path) for path in files)


def _kept(path: str, name: str, sound: Any) -> Any:
    kept = Path(f"{path[:-4]}.{name}.npy")
    if not kept.exists():
        np.save(kept, sound)
    return sound


# -- k-means: files are the frames, and the number of clusters; the centroids are kept beside the frames


def native_kmeans(_settings: Dict[str, Any]) -> Work:
    """`pipelines.units.fitting`."""
    from pipelines.units.fitting import fit

    return _fitting("native", lambda frames, clusters: fit(frames, clusters).centroids)


def sklearn_kmeans(_settings: Dict[str, Any]) -> Work:
    """scikit-learn's MiniBatchKMeans as it comes."""
    return _fitting("sklearn", _mini_batches)


def fairseq_kmeans(_settings: Dict[str, Any]) -> Work:
    """The same with what fairseq's learn_kmeans.py gives it."""
    how = {"max_iter": 100, "batch_size": 10_000, "tol": 0.0, "max_no_improvement": 100, "n_init": 20}
    return _fitting("fairseq", lambda frames, clusters: _mini_batches(frames, clusters, reassignment_ratio=0.0, **how))


def _mini_batches(frames: Any, clusters: int, **how: Any) -> Any:
    from sklearn.cluster import MiniBatchKMeans

    model = MiniBatchKMeans(clusters, random_state=0, compute_labels=False, **how)
    return model.fit(frames).cluster_centers_.astype(np.float32)


def _fitting(name: str, fit: Callable[[Any, int], Any]) -> Work:
    def work(files: List[str]) -> Any:
        centroids = fit(_load(files[0]), int(files[1]))
        _kept(f"{files[0][:-4]}.{files[1]}.npy", name, centroids)
        return 1, centroids.tobytes()

    return work


if __name__ == "__main__":
    serve(globals(), sys.argv[1], Path(sys.argv[2]))
