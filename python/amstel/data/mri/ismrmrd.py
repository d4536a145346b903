"""Cartesian k-space from the acquisitions of an ISMRMRD file, line by line.

Source: S. Inati et al., ISMRM Raw Data Format: A Proposed Standard for MRI Raw Datasets, MRM 77, 2017.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import torch
from torch import Tensor

from amstel._numerals import parsed

#: Bits of `flags`, from 1: lines that are of no image (noise, navigators, corrections, feedback, dummies, phase stabilization).
_NOT_OF_IMAGES = (19, 23, 24, 26, 27, 28, 29, 30, 31)
#: Bit of a line that is there for calibration alone: it counts where no other line was measured.
_CALIBRATION = 20
#: Bit of a line whose samples come in the other direction.
_REVERSED = 22
#: What a file may have one of only.
_ONE = ("contrast", "phase", "set", "repetition")


#: Largest plausible ratio of matrix points to samples, and of claimed to stored bytes.
_MOST, _MOST_PACKED = 1000, 100_000


def stored(item: Any) -> Any:
    """The contents of an HDF5 dataset, unless its header claims far more than is stored, all of which would be zeros."""
    elsewhere = item.is_virtual or item.external
    bytes_there = item.id.get_storage_size()
    if not elsewhere and item.size * item.dtype.itemsize > max(1 << 24, _MOST_PACKED * bytes_there):
        raise ValueError(
            f"{item.file.filename} must hold what its header says, got {list(item.shape)} for {item.name[1:]} in "
            f"{bytes_there} bytes"
        )
    return item[()]


def sizes(path: Path, xml: bytes | str) -> tuple[tuple[int, int, int], tuple[int, int, int], dict[str, int]]:
    """Matrices of the encoded and of the reconstructed space, x, y and z, and the centers of the encoding steps."""
    try:
        root = ElementTree.fromstring(xml)
    except ElementTree.ParseError as error:
        raise ValueError(f"{path}: the header of ISMRMRD must be XML, got {error}") from error
    name = root.tag.partition("}")[0] + "}" if root.tag.startswith("{") else ""

    def integer(text: str | None, what: str) -> int:
        try:
            return parsed((text or "").strip(), int)
        except ValueError:
            said = f"{path}: the header of ISMRMRD must give the {what} in integers"
            raise ValueError(f"{said}, got {text!r}") from None

    def matrix(space: str) -> tuple[int, int, int]:
        at = f"{name}encoding/{name}{space}/{name}matrixSize/{name}"
        found = [root.findtext(at + axis) for axis in "xyz"]
        if None in found:
            raise ValueError(f"{path}: the header of ISMRMRD must give the matrix of its {space}")
        x, y, z = (integer(text, f"matrix of its {space}") for text in found)
        return x, y, z

    centers = {}
    for step in ("kspace_encoding_step_1", "kspace_encoding_step_2"):
        text = root.findtext(f"{name}encoding/{name}encodingLimits/{name}{step}/{name}center")
        if text is not None:
            centers[step] = integer(text, f"center of its {step}")
    trajectory = root.findtext(f"{name}encoding/{name}trajectory")
    if trajectory not in (None, "cartesian"):
        raise ValueError(f"{path}: the trajectory of an ISMRMRD file must be cartesian, got {trajectory}")
    return matrix("encodedSpace"), matrix("reconSpace"), centers


def assembled(path: Path, group: Any) -> tuple[Tensor, Tensor | None, tuple[int, int] | None]:
    """k-space [slices, coils, readout, lines], what was measured (None: all; [lines], or [readout, lines] where lines are not
    whole), the size of the image (None: that of k-space).

    Samples that were measured several times are averaged; a volume is transformed along its second phase encoding, so that
    its partitions are slices, those within the field of view. Samples that a line says to discard are left out, and so are
    the lines of further encodings than the first.

    Raises:
        ValueError: no sample of an image, not Cartesian, several contrasts, phases, sets or repetitions, slices or partitions whose samples differ.
    """
    xml = group["xml"][()]
    (nx, ny, nz), (rx, ry, rz), centers = sizes(path, np.asarray(xml).reshape(-1)[0])
    records = stored(group["data"])
    head = records["head"]
    flags = head["flags"].astype(np.uint64)
    of_image = head["encoding_space_ref"] == 0  # `sizes` reads the first encoding alone
    for bit in _NOT_OF_IMAGES:
        of_image &= (flags >> np.uint64(bit - 1)) & np.uint64(1) == 0
    records, head, flags = records[of_image], head[of_image], flags[of_image]
    if not len(records):
        raise ValueError(f"{path} must hold acquisitions of an image, got none")
    index = head["idx"]
    for name in _ONE:
        values = np.unique(index[name])
        if len(values) > 1:
            raise ValueError(f"{path} must hold one {name}, got {len(values)}")
    coils = np.unique(head["active_channels"])
    if len(coils) > 1:
        raise ValueError(f"{path} must have the same number of coils in every line, got {coils.tolist()}")
    slices, of_slice = np.unique(index["slice"], return_inverse=True)
    nz = max(nz, 1)
    there = int(head["number_of_samples"].sum())
    if min(nx, ny) < 1 or len(slices) * nx * ny * nz > _MOST * there:
        raise ValueError(
            f"{path} must have a matrix that fits its {there} samples per coil, got {nx} x {ny} x {nz}"
        )
    kspace = np.zeros((len(slices), nz, int(coils[0]), nx, ny), np.complex64)
    count = np.zeros((len(slices), nz, nx, ny), np.int32)
    calibration = flags >> np.uint64(_CALIBRATION - 1) & np.uint64(1) == 1
    order = np.argsort(calibration, kind="stable")
    images = len(records) - int(calibration.sum())
    # The middle of k-space belongs at n // 2.
    first, second = (
        n // 2 - centers.get(step, n // 2)
        for n, step in ((ny, "kspace_encoding_step_1"), (nz, "kspace_encoding_step_2"))
    )
    measured: np.ndarray = np.any(count > 0, axis=2)
    for number, k in enumerate(order):
        record, where = records[k], of_slice.reshape(-1)[k]
        one = record["head"]
        if number == images:
            measured = np.any(count > 0, axis=2)
        samples = int(one["number_of_samples"])
        data = np.asarray(record["data"], np.float32).view(np.complex64).reshape(int(coils[0]), samples)
        before, after = int(one["discard_pre"]), int(one["discard_post"])
        data = data[:, before : max(samples - after, 0)]
        center = int(one["center_sample"])
        if int(one["flags"]) >> (_REVERSED - 1) & 1:
            data, before = data[:, ::-1], after
            # It counts the samples as they come; but of a whole line converters say n / 2 in either direction.
            center = center if 2 * center == samples else samples - 1 - center
        column = int(one["idx"]["kspace_encode_step_1"]) + first
        part = int(one["idx"]["kspace_encode_step_2"]) + second if nz > 1 else 0
        begin = nx // 2 - center + before
        end = begin + data.shape[1]
        if not (0 <= column < ny and 0 <= part < nz and 0 <= begin and end <= nx):
            raise ValueError(
                f"{path} must have lines within its matrix {nx} x {ny} x {nz}, got line {column} of {part}"
            )
        if calibration[k] and measured[where, part, column]:
            continue
        kspace[where, part, :, begin:end, column] += data
        count[where, part, begin:end, column] += 1
    if ((count > 0) != (count[:1, :1] > 0)).any():
        raise ValueError(f"{path} must have the same samples in every slice and partition")
    kspace /= np.maximum(count, 1)[:, :, None]
    found = torch.from_numpy(kspace)
    if nz > 1:
        turned = torch.fft.ifft(torch.fft.ifftshift(found, dim=1), dim=1, norm="ortho")
        kept = min(max(rz, 1), nz)  # the others lie beyond the field of view
        found = torch.fft.fftshift(turned, dim=1).narrow(1, nz // 2 - kept // 2, kept)
    points = torch.from_numpy(count[0, 0] > 0)
    mask = points.any(0) if bool((points == points.any(0)).all()) else points
    if not mask.any():
        raise ValueError(f"{path} must hold samples of an image, got only such as are to be discarded")
    size = (min(rx, nx), min(ry, ny)) if min(rx, ry) > 0 else None
    return found.flatten(0, 1), None if mask.all() else mask, size
