"""Folders of sequences and of frames: the videos in them, and a warning about files that are ignored."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from amstel.media.formats import IMAGES, warn_of_folders, warn_of_others, warn_of_strangers

#: Endings of what OTB, GOT-10k, VOT and ALOV have beside frames.
ANNOTATIONS = (".txt", ".label", ".ini", ".tag", ".value", ".ann", ".json", ".meta", ".xml", ".mat")


def expanded(paths: Sequence[Path]) -> list[Path]:
    """The videos, with the OTB sequences of a folder that holds some in its place."""
    found: list[Path] = []
    for path in paths:
        below = sorted(p for p in path.iterdir() if (p / "img").is_dir()) if path.is_dir() else []
        if below and not (path / "img").is_dir():
            warn_of_others(path, [], "not in the folder of a sequence")
            warn_of_folders(path, below, "without a folder img")
            found += below
        else:
            found.append(path)
    for path in found:
        if path.is_dir():
            folder = path / "img" if (path / "img").is_dir() else path
            warn_of_strangers(folder, [folder], (*IMAGES, *ANNOTATIONS), "not a frame")
    return found


def warn_of_sequences(root: Path, sequences: Sequence[Any]) -> None:
    """Warn which files beside the frames are ignored: neither frames nor annotations of them."""
    folders = dict.fromkeys(frame.parent for sequence in sequences for frame in sequence.frames)
    reason = "neither a frame nor an annotation"
    warn_of_strangers(root, folders, (*IMAGES, *ANNOTATIONS), reason)


def print_warning(text: str) -> None:
    """A line on stderr."""
    print(f"amstel: warning: {' '.join(text.split())}", file=sys.stderr)
