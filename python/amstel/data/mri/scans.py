"""Whole scans from the files of scanners and toolboxes: fastMRI, ISMRMRD, BART, MATLAB and NumPy."""

from __future__ import annotations

import contextlib
import math
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from amstel import _check, _files
from amstel._numerals import parsed
from amstel._optional import need
from amstel._words import counted
from amstel.data.mri import ismrmrd
from amstel.data.mri.readers import too_large
from amstel.inverse._checks import check_binary
from amstel.reference.mri import fft2, ifft2

#: Names under which k-space lies in files that hold several things.
KSPACE = ("kspace", "ksp", "kdata", "k", "y", "data", "rawdata")
#: The same of coil sensitivities.
MAPS = ("sensitivities", "sens", "sens_maps", "maps", "smaps", "coil_maps", "csm")
ENDINGS = (".npy", ".npz", ".h5", ".hdf5", ".mat", ".cfl")


@dataclass(frozen=True, eq=False)
class Scan:
    """The k-space of some slices, as stored in a file.

    Attributes:
        kspace: complex64 [slices, coils, H, W], centered; if any values are not finite, nothing was sampled there.
        mask: bool [W] or [H, W], what was sampled, according to the file or else to the values; None if the file has no
            mask and no values are missing.
        image_size: (height, width) of the scanner's image, the central part of the reconstruction; None: all of it.

    Example:
        >>> scan = Scan(torch.ones(2, 1, 4, 6, dtype=torch.complex64))
        >>> scan.kspace.shape, scan.cropped(torch.ones(2, 4, 6)).shape
        (torch.Size([2, 1, 4, 6]), torch.Size([2, 4, 6]))
    """

    kspace: Tensor
    mask: Tensor | None = None
    image_size: tuple[int, int] | None = None

    def cropped(self, images: Tensor) -> Tensor:
        """The central part of images [..., H, W], of size `image_size`."""
        return images if self.image_size is None else _middle(images, *self.image_size)

    def sampled_by(self, mask: Tensor) -> Scan:
        """The scan with another mask, [W] or [H, W] of 0 and 1, applied on top of its own; missing samples stay missing."""
        height, width = self.kspace.shape[-2:]
        expected = f"[{width}] or [{height}, {width}] of 0 and 1"
        sampled = check_binary("mask", mask, expected)
        if sampled.shape not in ((width,), (height, width)):
            _check.fail("mask", expected, mask)
        return replace(self, mask=sampled if self.mask is None else sampled & self.mask)

    def without_oversampling(self) -> Scan:
        """The field of view in the direction of the rows (readout) cut to that of the image, which usually halves it.

        Exact if whole columns are sampled. A scan with another kind of mask, or without `image_size`, stays unchanged.
        """
        height = self.kspace.shape[-2]
        columns = self.mask is None or self.mask.dim() == 1
        if self.image_size is None or self.image_size[0] >= height or not columns:
            return self
        sampled = self.kspace if self.mask is None else self.kspace.masked_fill(~self.mask, 0)
        images = _middle(ifft2(sampled, centered=True), self.image_size[0], self.kspace.shape[-1])
        found = fft2(images, centered=True)
        return replace(self, kspace=found if self.mask is None else found.masked_fill(~self.mask, 0))


def read_scan(path: str | os.PathLike) -> Scan:
    """Read the k-space of all slices in a file.

    - `.npy`, `.npz`: complex [coils, H, W], [H, W] or [slices, coils, H, W]; or, as in all formats, floats or signed
      integers [..., H, W, 2], real and imaginary part. Of several arrays, the one called kspace (or ksp, kdata, ...) is
      used, and "mask" if there is one.
    - `.mat`: the same, for MATLAB up to version 7 (needs scipy) and 7.3 (needs h5py); also [H, W, coils] and
      [H, W, coils, slices]. The coils are the smaller of the first dimension and the last one before the slices.
    - `.h5`: fastMRI's files, "kspace" [slices, coils, H, W] or [slices, H, W] with "mask"; ISMRMRD's files, "dataset" with
      one acquisition per line (Cartesian only: see `amstel.data.mri.ismrmrd`). Needs h5py.
    - `.cfl` with its `.hdr`: BART's files. Dimensions 0 to 2 are space, 3 the coils and 13 the slices. For a volume,
      dimension 0 (the readout) is transformed, and becomes the slices.

    Samples that are 0 or not finite in every coil and slice count as not measured, unless the file says otherwise.

    Raises:
        FileNotFoundError: the file does not exist (or, for `.cfl`, its `.hdr`).
        ValueError: an unknown extension; no k-space, or several candidates; other dimensions.
        ImportError: h5py or scipy (extra [mri]) is missing.

    Example:
        >>> scan = amstel.data.mri.read_scan("half_kspace.npy")
        >>> scan.kspace.shape, scan.mask.int().tolist()  # every second column
        (torch.Size([1, 8, 16, 12]), [0, 1, 0, 1, 0, 1, 0, 1, 0, 1, 0, 1])
    """
    scan = _read(Path(path), "scan")
    return scan if scan.mask is not None else replace(scan, mask=_sampled(path, scan.kspace))


def read_maps(path: str | os.PathLike) -> Tensor:
    """Read coil sensitivities, complex64 [slices, coils, H, W], from any format of `read_scan`, such as BART's ecalib's.

    They are images, so nothing is transformed. Of three dimensions, the first is the coils, in HDF5 too. Of several arrays,
    the one called sensitivities (or maps, smaps, sens, csm, ...) is used.

    Raises:
        FileNotFoundError, ValueError, ImportError: as `read_scan`; NaN or infinity.

    Example:
        >>> amstel.data.mri.read_maps("maps.cfl").shape
        torch.Size([1, 8, 16, 12])
    """
    maps = _read(Path(path), "file of sensitivities", maps=True).kspace
    if not torch.view_as_real(maps).isfinite().all():
        raise ValueError(f"{path} must hold finite numbers, got NaN or infinity")
    return maps


def _read(path: Path, what: str, maps: bool = False) -> Scan:
    if not path.is_file():
        raise FileNotFoundError(f"the {what} {path} does not exist")
    reader = _READERS.get(path.suffix.lower())
    if reader is None:
        raise ValueError(f"{path} must end in one of {', '.join(ENDINGS)}")
    return reader(path, maps)


def _sampled(path: str | os.PathLike, kspace: Tensor) -> Tensor | None:
    """[W] of whole columns or [H, W]: where there is something; None: everywhere."""
    there = ((kspace != 0) & torch.isfinite(torch.view_as_real(kspace)).all(-1)).any(1)
    there = there[there.flatten(1).any(1)]  # without empty slices
    if not len(there):
        raise ValueError(f"{path} must hold k-space that is not zero everywhere")
    if bool((there != there[:1]).any()):
        raise ValueError(f"{path} must have the same samples in every slice, because it has no mask")
    points = there[0]
    if bool((points == points.any(0)).all()):  # whole columns
        return None if points.all() else points.any(0)
    return points


def check_finite(path: str | os.PathLike, number: int, kspace: Tensor, mask: Tensor | None = None) -> None:
    """ValueError where slice `number`, [..., H, W], has samples, those of the mask, that are no numbers."""
    wrong = ~torch.view_as_real(kspace).isfinite().all(-1)
    if count := int((wrong if mask is None else wrong & mask).sum()):
        what = f"NaN or infinity in {counted(count, 'sample')} of slice {number}"
        raise ValueError(f"{path} must hold finite k-space, got {what}")


# ------------------------------------------------------------------------------------------- formats


def _numpy(path: Path, maps: bool) -> Scan:
    try:
        found = np.load(path, allow_pickle=False)
        if isinstance(found, np.ndarray):
            return _scan(path, _fields(found))
        return _of_several(path, dict(found), maps)
    except (*_files.DAMAGED_ARRAY, OSError) as error:
        if str(path) in str(error):
            raise
        raise ValueError(f"{path} must be a file of NumPy without pickled objects") from error
    except MemoryError as error:
        raise too_large(path, error) from None


def _matlab(path: Path, maps: bool) -> Scan:
    with path.open("rb") as file:
        head = file.read(10)
    if head == b"MATLAB 7.3":
        with _damage(path, "MATLAB"), _hdf5(path) as file:
            # MATLAB writes the first dimension last.
            arrays = {name: ismrmrd.stored(file[name]).T for name in _datasets(file)}
            return _of_several(path, arrays, maps, partial(_coils_first, path))
    load = need("scipy.io", extra="mri", purpose="reading .mat").loadmat
    try:
        found = load(path)
    except Exception as error:
        raise ValueError(f"{path} is not a readable MATLAB file") from error
    arrays = {name: value for name, value in found.items() if not name.startswith("__")}
    # A mask may be sparse.
    arrays = {name: a.toarray() if hasattr(a, "toarray") else a for name, a in arrays.items()}
    return _of_several(path, arrays, maps, partial(_coils_first, path))


def _coils_first(path: Path, array: np.ndarray) -> np.ndarray:
    """[H, W, coils] and [H, W, coils, slices] of MATLAB as [slices, coils, H, W]."""
    if not np.iscomplexobj(array) or array.ndim not in (3, 4):
        return array
    coils = (0, 2) if array.ndim == 3 else (1, 2)
    sizes = [array.shape[k] for k in coils]
    if sizes[0] == sizes[1]:
        raise ValueError(
            f"{path} must have fewer coils than rows, to tell one from the other, got {list(array.shape)}"
        )
    if sizes[0] < sizes[1]:
        return array
    return array.transpose(2, 0, 1) if array.ndim == 3 else array.transpose(3, 2, 0, 1)


@contextlib.contextmanager
def _damage(path: Path, kind: str) -> Iterator[None]:
    """Within the `with`, whatever a damaged file ends in is a ValueError that names it."""
    try:
        yield
    except (OSError, LookupError, RuntimeError, TypeError, ValueError, AttributeError) as error:
        if str(path) in str(error):
            raise
        raise ValueError(f"{path} is damaged, or no {kind} file of a scan: {error}") from error


def _hdf5(path: Path) -> Any:
    h5py = need("h5py", extra="mri", purpose=f"reading {path.suffix}")
    try:
        return h5py.File(path, "r")
    except OSError as error:
        raise ValueError(f"{path} is not a readable HDF5 file") from error


def _h5(path: Path, maps: bool) -> Scan:
    with _damage(path, "HDF5"), _hdf5(path) as file:
        if "dataset" in file and "data" in file["dataset"]:
            if maps:
                raise ValueError(f"{path} must hold coil sensitivities, got the acquisitions of a scanner")
            return Scan(*ismrmrd.assembled(path, file["dataset"]))
        arrays = {name: ismrmrd.stored(file[name]) for name in _datasets(file) if name != "ismrmrd_header"}
        scan = _of_several(path, arrays, maps, None if maps else _slices_first)
        if "ismrmrd_header" in file:
            sizes = ismrmrd.sizes(path, file["ismrmrd_header"][()])
            scan = replace(scan, image_size=_fitting(sizes[1][:2], scan.kspace))
        return scan


def _datasets(file: Any) -> list[str]:
    return [name for name, item in file.items() if hasattr(item, "shape") and item.shape]


def _slices_first(array: np.ndarray) -> np.ndarray:
    """[slices, H, W] of fastMRI with one coil as [slices, 1, H, W]."""
    return array[:, None] if array.ndim == 3 and np.iscomplexobj(array) else array


def _bart(path: Path, maps: bool) -> Scan:
    header = path.with_suffix(".hdr")
    if not header.is_file():
        raise FileNotFoundError(f"the header {header} of {path} does not exist")
    lines = [line.strip() for line in header.read_text(encoding="utf-8", errors="replace").splitlines()]
    numbers = next((line for line in lines if line and not line.startswith("#")), "")
    try:
        dims = [parsed(n, int) for n in numbers.split()]
    except ValueError:
        dims = []
    data = np.fromfile(path, "<c8")
    if not dims or min(dims) < 1 or data.size != math.prod(dims):
        raise ValueError(
            f"{header} must give the dimensions of {path}, which has {counted(data.size, 'number')}, got {numbers!r}"
        )
    dims += [1] * (16 - len(dims))
    if [n for k, n in enumerate(dims) if n > 1 and k not in (0, 1, 2, 3, 13)]:
        raise ValueError(f"{path} must have no dimensions but 0 to 3 and 13 (slices), got {dims}")
    array = data.reshape(dims, order="F").reshape(*dims[:4], dims[13], order="F")
    space = [n > 1 for n in dims[:3]]
    if all(space):  # a volume
        if dims[13] > 1:
            raise ValueError(f"{path} must be a volume or slices, got both: {dims}")
        if not maps:
            # From the ends of the dimension, as the middle of a centered transform lies at n // 2.
            array = np.fft.ifft(np.fft.ifftshift(array, axes=0), axis=0, norm="ortho")
            array = np.fft.fftshift(array, axes=0)
        slices = array[..., 0].transpose(0, 3, 1, 2)
    else:
        flat = [k for k in range(3) if not space[k]][-1]
        slices = np.moveaxis(array, flat, 0)[0].transpose(3, 2, 0, 1)
    return _scan(path, slices)


_READERS: dict[str, Callable[[Path, bool], Scan]] = {
    ".npy": _numpy,
    ".npz": _numpy,
    ".mat": _matlab,
    ".h5": _h5,
    ".hdf5": _h5,
    ".cfl": _bart,
}


# -------------------------------------------------------------------------------------- what they share


def _of_several(
    path: Path,
    arrays: dict[str, np.ndarray],
    maps: bool,
    arranged: Callable[[np.ndarray], np.ndarray] | None = None,
) -> Scan:
    """The k-space among arrays of a file, with their mask, or the sensitivities."""
    lower = {name.lower(): _fields(array) for name, array in arrays.items()}
    known = MAPS if maps else KSPACE
    named = [name for name in known if name in lower]
    kinds = {name for name, array in lower.items() if np.iscomplexobj(array) and array.ndim >= 2}
    if named:
        name = named[0]
    elif len(kinds) == 1:
        name = kinds.pop()
    else:
        have = ", ".join(f"{name} {_describe(array)}" for name, array in arrays.items())
        raise ValueError(f"{path} must hold one array called {known[0]}, got {have or 'none'}")
    array = _pairs(lower[name])  # before its dimensions are counted
    if arranged is not None:
        array = arranged(array)
    mask = None if maps else lower.get("mask")
    return _scan(path, array, mask=mask)


def _fields(array: np.ndarray) -> np.ndarray:
    """Complex of records of a real and an imaginary part, as HDF5 has them; others as they are."""
    for real, imaginary in (("real", "imag"), ("r", "i")):
        if array.dtype.names and sorted(array.dtype.names) == sorted((real, imaginary)):
            return _joined(array[real], array[imaginary])
    return array


def _pairs(array: np.ndarray) -> np.ndarray:
    """Complex of real [..., H, W, 2], the real and the imaginary part; others as they are."""
    if array.dtype.kind in "fi" and array.ndim >= 3 and array.shape[-1] == 2:
        return _joined(array[..., 0], array[..., 1])
    return array


def _joined(real: np.ndarray, imaginary: np.ndarray) -> np.ndarray:
    joined = np.empty(real.shape, np.result_type(real, imaginary, np.complex64))
    joined.real, joined.imag = real, imaginary
    return joined


def _scan(path: Path, array: np.ndarray, mask: np.ndarray | None = None) -> Scan:
    array = _pairs(array)
    if not np.iscomplexobj(array) or array.ndim not in (2, 3, 4) or not array.size:
        wanted = "complex k-space [H, W], [coils, H, W] or [slices, coils, H, W]"
        raise ValueError(f"{path} must hold {wanted}, got {_describe(array)}")
    array = array.reshape((1,) * (4 - array.ndim) + array.shape)
    if array.shape[1] > 2 * array.shape[3]:
        raise ValueError(
            f"{path} must have its coils first, [coils, H, W]: numpy.moveaxis(kspace, -1, -3) moves them there, "
            f"got {_describe(array)}"
        )
    kspace = torch.from_numpy(np.ascontiguousarray(array.astype(np.complex64)))
    height, width = kspace.shape[2:]
    if mask is not None:
        found = np.squeeze(np.asarray(mask))
        if found.shape not in ((width,), (height, width)) or not np.isin(found, (0, 1)).all():
            raise ValueError(
                f"{path} must hold a mask [{width}] or [{height}, {width}] of 0 and 1, got {_describe(found)}"
            )
        return Scan(kspace, torch.from_numpy(found != 0))
    return Scan(kspace)


def _fitting(size: Any, kspace: Tensor) -> tuple[int, int] | None:
    height, width = (min(int(a), b) for a, b in zip(size, kspace.shape[-2:], strict=True))
    return (height, width) if height > 0 and width > 0 else None


def _middle(images: Tensor, height: int, width: int) -> Tensor:
    i, j = images.shape[-2] // 2 - height // 2, images.shape[-1] // 2 - width // 2
    if i < 0 or j < 0:
        _check.fail("images", f"at least {height} x {width} pixels", images)
    return images[..., i : i + height, j : j + width]


def _describe(array: np.ndarray) -> str:
    return f"{array.dtype} {list(array.shape)}"
