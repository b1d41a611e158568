"""The centroids in a k-means of scikit-learn that joblib wrote, without scikit-learn, joblib, or trust.

A joblib file is a pickle in which each array is a small object that tells its shape, followed by its bytes. A pickle
may name any function and have it called; here only what builds arrays may be named, and what belongs to scikit-learn
or to a random number generator becomes an inert object. Format: joblib/numpy_pickle.py of github.com/joblib/joblib.
"""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import pickle
import zlib
from pathlib import Path
from typing import IO, Any, Callable, ClassVar, Dict, Optional, Tuple

import numpy as np
import numpy.typing as npt

from pipelines.units.checkpoint import CheckpointError, nature

Centroids = npt.NDArray[np.float32]
MOST_BYTES = 1 << 30
"""65,536 centroids of 4,096 numbers: what is larger is no codebook."""


def read_centroids(path: Path) -> Centroids:
    """`cluster_centers_` (clusters, width), float32, of a joblib file or a .npy array. Raises CheckpointError."""
    kind = nature(path)
    if kind == "npy":
        return _verified(path, _load_npy(path))
    if kind == "lz4":
        raise CheckpointError(f"{path} is compressed with lz4. Unpack it first: `lz4 -d {path.name} km.bin`.")
    if kind not in ("pickle", "zlib", *_PACKED):
        raise CheckpointError(
            f"{path} is no k-means of scikit-learn that joblib wrote, nor an array (.npy): it is of kind {kind!r}. "
            "The published ones are named km.bin or …_km500.bin."
        )
    try:
        with _opened(path, kind) as file:
            found = _Reader(file).load()
    except _RefusedError as error:
        raise CheckpointError(
            f"{path} asks for the Python object {error}, which a k-means does not need and which could run anything. "
            "It was not loaded. If you trust where the file is from, save its cluster_centers_ with numpy.save and "
            "import that."
        ) from None
    except Exception as error:  # noqa: BLE001 - a damaged pickle can fail in any way
        raise CheckpointError(
            f"{path} is damaged or cut off ({type(error).__name__}: {str(error)[:150]}). Its download or copy was "
            "probably interrupted: fetch it again."
        ) from None
    centroids = found if isinstance(found, np.ndarray) else getattr(found, "__dict__", {}).get("cluster_centers_")
    if centroids is None:
        raise CheckpointError(
            f"{path} holds a {getattr(type(found), 'origin', type(found).__name__)} without cluster_centers_: it is "
            "no k-means, or was saved before it was fitted."
        )
    return _verified(path, centroids)


def _load_npy(path: Path) -> Any:
    try:
        return np.load(path, allow_pickle=False)
    except (ValueError, OSError, EOFError) as error:
        raise CheckpointError(f"{path} is no array of numbers that numpy.save wrote: {error}.") from None


def _verified(path: Path, centroids: Any) -> Centroids:
    if not isinstance(centroids, np.ndarray) or centroids.dtype.kind != "f" or centroids.ndim != 2:
        shape, dtype = getattr(centroids, "shape", None), getattr(centroids, "dtype", type(centroids).__name__)
        raise CheckpointError(
            f"{path} has centroids of shape {shape} and type {dtype}; floating point, (clusters, width), is needed."
        )
    if not (centroids.size and np.isfinite(centroids).all()):
        raise CheckpointError(f"{path} has no centroids, or infinite or undefined numbers in them: it is damaged.")
    return np.ascontiguousarray(centroids, dtype=np.float32)


# -- reading


class _RefusedError(Exception):
    """The file names an object that it has no business with."""


class _Inert:
    """Stands for an object that is not needed; keeps its fields and does nothing."""

    origin = ""

    def __init__(self, *_: Any, **__: Any) -> None:
        pass

    def __setstate__(self, state: Any) -> None:
        if isinstance(state, dict):
            self.__dict__.update(state)


class _Array:
    """joblib's description of an array whose bytes follow."""

    subclass: Any
    shape: Tuple[int, ...]
    order: str
    dtype: Any
    numpy_array_alignment_bytes: Optional[int] = None

    def read(self, file: IO[bytes]) -> Any:
        """The array. Raises ValueError, EOFError."""
        dtype = np.dtype(self.dtype)
        if dtype.hasobject:
            raise _RefusedError("numpy array of Python objects")
        if self.numpy_array_alignment_bytes is not None:
            file.read(file.read(1)[0])
        shape = tuple(int(size) for size in self.shape)
        size = dtype.itemsize
        for each in shape:
            size *= each
        if not 0 <= size <= MOST_BYTES:
            raise ValueError(f"an array of {size:,} bytes")
        data = file.read(size)
        if len(data) != size:
            raise EOFError(f"an array of {size:,} bytes ends after {len(data):,}")
        flat = np.frombuffer(data, dtype)
        return flat.reshape(shape[::-1]).T if self.order == "F" else flat.reshape(shape)


def _latin1(text: str, encoding: str = "latin1") -> bytes:
    """What pickles of Python 2's protocol need of codecs.encode."""
    return text.encode("latin1" if encoding != "utf-8" else "utf-8")


def _reconstruct(subtype: Any, shape: Any, kind: Any) -> Any:
    """numpy's, for plain arrays."""
    if subtype is not np.ndarray:
        raise _RefusedError(repr(subtype))
    return np.ndarray(shape, kind)


def _scalar(dtype: Any, data: bytes = b"") -> Any:
    """numpy's, for numbers."""
    if dtype.hasobject:
        raise _RefusedError("numpy scalar of Python objects")
    return np.frombuffer(data, dtype)[0]


def _from_buffer(data: Any, dtype: Any, shape: Any, order: str) -> Any:
    """numpy's, for arrays of numbers."""
    if dtype.hasobject:
        raise _RefusedError("numpy array of Python objects")
    return np.frombuffer(data, dtype).reshape(shape, order="F" if order == "F" else "C")


_ALLOWED: Dict[Tuple[str, str], Any] = {
    ("numpy", "ndarray"): np.ndarray,
    ("numpy", "dtype"): np.dtype,
    ("_codecs", "encode"): _latin1,
    ("builtins", "slice"): slice,
    ("builtins", "set"): set,
    ("builtins", "frozenset"): frozenset,
}
for _module in ("numpy.core", "numpy._core"):
    _ALLOWED[f"{_module}.multiarray", "_reconstruct"] = _reconstruct
    _ALLOWED[f"{_module}.multiarray", "scalar"] = _scalar
    _ALLOWED[f"{_module}.numeric", "_frombuffer"] = _from_buffer
_INERT = ("sklearn", "numpy.random", "threadpoolctl")


_Unpickler: Any = pickle._Unpickler  # noqa: SLF001 - written in Python: the other reads ahead, past the arrays


class _Reader(_Unpickler):  # type: ignore[misc]
    """A pickle's reader that finds only what it must, and puts arrays in the place of their descriptions."""

    dispatch: ClassVar[Dict[int, Callable[[Any], None]]] = dict(_Unpickler.dispatch)

    def __init__(self, file: IO[bytes]) -> None:
        super().__init__(file)
        self._file = file

    def find_class(self, module: str, name: str) -> Any:
        """The object of that name, if a k-means may have it."""
        if name == "NumpyArrayWrapper" and module.endswith("joblib.numpy_pickle"):
            return _Array
        found = _ALLOWED.get((module, name))
        if found is not None:
            return found
        if any(module == each or module.startswith(f"{each}.") for each in _INERT):
            return type(name, (_Inert,), {"origin": f"{module}.{name}"})
        raise _RefusedError(f"{module}.{name}")

    def persistent_load(self, pid: Any) -> Any:
        """Nothing lies outside the file."""
        raise _RefusedError(f"persistent object {pid!r}")

    def load_build(self) -> None:
        """As always; then an array's description becomes the array."""
        super().load_build()
        stack = self.stack
        if isinstance(stack[-1], _Array):
            stack[-1] = stack[-1].read(self._file)

    dispatch[pickle.BUILD[0]] = load_build


def _opened(path: Path, kind: str) -> IO[bytes]:
    """The pickle in a file, unpacked where it is compressed (in memory: codebooks are small)."""
    if kind == "pickle":
        return path.open("rb")
    if kind == "zlib":
        stream = zlib.decompressobj()
        data = stream.decompress(path.read_bytes(), MOST_BYTES)
        if not stream.eof:
            raise EOFError("the compressed data end early, or are no codebook")
        return io.BytesIO(data)
    with _PACKED[kind](path, "rb") as file:
        return io.BytesIO(file.read(MOST_BYTES))


_PACKED: Dict[str, Callable[..., Any]] = {"gzip": gzip.open, "bz2": bz2.open, "xz": lzma.open, "lzma": lzma.open}
