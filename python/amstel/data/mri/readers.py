"""Readers for k-space, sampling masks and ADMM-Net's images."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from amstel import _files
from amstel._check import fail


def _load(path: str | os.PathLike, what: str) -> np.ndarray:
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"the {what} {path} does not exist")
    try:
        array = np.load(path, allow_pickle=False)
    except _files.DAMAGED_ARRAY as error:
        raise ValueError(f"{path} must be a .npy file without pickled objects") from error
    except MemoryError as error:
        raise too_large(path, error) from None
    if not isinstance(array, np.ndarray):
        raise ValueError(f"{path} must be a .npy file of one array, got an archive")
    return array


def too_large(path: str | os.PathLike, error: MemoryError) -> ValueError:
    """For a file that takes more memory than there is; a damaged header may claim so."""
    return ValueError(f"{path} does not fit into memory, or its header is damaged: {error}")


def _describe(array: np.ndarray) -> str:
    return f"{array.dtype} {list(array.shape)}"


def read_kspace(path: str | os.PathLike) -> Tensor:
    """Centered k-space of one slice from a .npy file: complex64 [coils, H, W].

    The file holds complex numbers, [coils, H, W] or [H, W] (one coil).

    Raises:
        FileNotFoundError: the file does not exist.
        ValueError: not a .npy file, real numbers, a wrong rank, no samples, NaN or infinity.

    Example:
        >>> kspace = amstel.data.mri.read_kspace("full_kspace.npy")
        >>> kspace.shape
        torch.Size([8, 16, 12])
    """
    array = _load(path, "k-space")
    if not np.iscomplexobj(array) or array.ndim not in (2, 3) or not array.size:
        raise ValueError(f"{path} must hold complex k-space [coils, H, W] or [H, W], got {_describe(array)}")
    if not np.isfinite(array).all():
        raise ValueError(f"{path} must hold finite numbers, got NaN or infinity")
    return torch.from_numpy(array.astype(np.complex64).reshape(-1, *array.shape[-2:]))


def read_mask(path: str | os.PathLike, index: int | None = None) -> Tensor:
    """A centered sampling mask from a .npy file: bool [H, W], or bool [W] of whole columns.

    Args:
        path: the file holds [W], [H, W], or a stack of masks [count, H, W]: booleans, or numbers that are 0 or 1.
        index: which mask of a stack; must be given where there are several.

    Raises:
        FileNotFoundError: the file does not exist.
        ValueError: not a .npy file, a wrong rank, values other than 0 and 1, nothing sampled, an index out of range,
            several masks and no index.

    Example:
        >>> import tempfile, numpy as np
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     np.save(f"{folder}/mask.npy", np.array([0, 1, 1, 0]))
        ...     amstel.data.mri.read_mask(f"{folder}/mask.npy")
        tensor([False,  True,  True, False])
    """
    array = _load(path, "mask")
    if array.ndim not in (1, 2, 3) or not array.size or not np.isin(array, (0, 1)).all():
        raise ValueError(
            f"{path} must hold a mask [W], [H, W] or [count, H, W] of zeros and ones, got {_describe(array)}"
        )
    if array.ndim == 3:
        if index is None and len(array) > 1:
            raise ValueError(
                f"{path} must hold one mask [W] or [H, W], got {len(array)} of them, {_describe(array)}"
            )
        index = index or 0
        if not 0 <= index < len(array):
            fail("index", f"the number of a mask of {path}, from 0 to {len(array) - 1}", index)
        array = array[index]
    mask = torch.from_numpy(array.astype(bool))
    if not mask.any():
        raise ValueError(f"{path} must sample something, got a mask of zeros")
    return mask


def read_admmnet(root: str | os.PathLike) -> Tensor:
    """The magnitude images of ADMM-Net's training set from `chest_train_100.npy`: float32 [100, H, W] in [0, 1].

    Source: Yang, Sun, Li and Xu, "Deep ADMM-Net for compressive sensing MRI", NIPS 2016.

    Args:
        root: the file, or its folder.

    Raises:
        FileNotFoundError: the file does not exist.
        ValueError: the file holds something else.

    Example:
        >>> import tempfile, numpy as np
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     np.save(f"{folder}/chest_train_100.npy", np.eye(3)[None])
        ...     amstel.data.mri.read_admmnet(folder)
        tensor([[[1., 0., 0.],
                 [0., 1., 0.],
                 [0., 0., 1.]]])
    """
    path = Path(root)
    path = path / "chest_train_100.npy" if path.is_dir() else path
    array = _load(path, "file of images")
    if (
        array.ndim != 3
        or array.dtype.kind != "f"
        or not array.size
        or not ((array >= 0) & (array <= 1)).all()
    ):
        raise ValueError(f"{path} must hold real images [count, H, W] in [0, 1], got {_describe(array)}")
    return torch.from_numpy(array.astype(np.float32))
