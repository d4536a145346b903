"""Features of frames, computed once by a frozen backbone and stored in files that training memory-maps.

A folder of features holds `features.json` (their origin, and all clips), `backbone.pt` (so that a network that was
trained on them can read videos) and, for each clip, "class/clip.rgb.npy" and "class/clip.flow.npy": float16, a map
[512, 7, 7] of pool5 or a vector [4096] of fc7 for every frame. A file is written completely or not at all, and an existing
file is not computed again, so an extraction that was killed continues where it stopped.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor

from amstel import _check, _files
from amstel.apps.ranks import Outcome, Ranks, each
from amstel.apps.video.network import Network
from amstel.apps.video.samples import FeatureClip, _prepare
from amstel.apps.video.settings import Settings
from amstel.data.clips import ClipFolder
from amstel.distributed._collectives import together

RECORD, BACKBONE, FORMAT = "features.json", "backbone.pt", "amstel video_features 1"
#: The settings on which features depend.
OF_FRAMES = ("backbone", "layer", "frame_size", "motion", "stride", "fps")


def _file(folder: Path, name: str, stream: str) -> Path:
    return folder / f"{name}.{stream}.npy"


def bytes_a_frame(settings: Settings) -> int:
    """Bytes on disk per frame and stream."""
    side = settings.frame_size // 32
    return 2 * (4096 if settings.layer == "fc7" else 512 * side * side)


def extract(
    clips: ClipFolder,
    settings: Settings,
    out: Path,
    backbone_weights: dict[str, Tensor],
    *,
    streams: tuple[str, ...] = ("rgb",),
    force: bool = False,
    ranks: Ranks | None = None,
    progress: Callable[[int], None] | None = None,
) -> list[Outcome[int, int]]:
    """Write the features of all clips; outcome i belongs to clip i, and its value is the number of frames.

    Args:
        clips: a folder of videos, with or without official splits.
        settings: with backbone="vgg16"; of it `OF_FRAMES` matter.
        out: the folder to write to.
        backbone_weights: torchvision's state_dict of VGG-16.
        streams: "rgb", "flow" or both; VideoLSTM on RGB reads both.
        force: compute existing features again, also with other settings.
        ranks: processes that each take a share of the clips.
        progress: called with 1 after every clip.

    Raises:
        ValueError: settings without a frozen backbone.
        FileExistsError: `out` holds features of other settings, weights, streams or splits. Without splits, those of
            features that are there stay.
    """
    if settings.backbone != "vgg16":
        _check.fail("backbone", "vgg16, which is not trained", settings.backbone)
    ranks = ranks or Ranks()
    model = "cnn" if settings.layer == "fc7" else "convlstm"
    both = replace(settings, model=model, stream="both" if len(streams) > 1 else streams[0])
    network = Network(both, ["", " "])  # for its backbones; there are no classes to tell apart
    network.load_backbone(backbone_weights)
    network.to(ranks.device).eval()
    first: Any = network.streams[both.streams[0]]
    state = first.backbone.state_dict()
    record: dict[str, Any] = {
        "format": FORMAT,
        "settings": {name: getattr(settings, name) for name in OF_FRAMES},
        "streams": list(streams),
        "weights": _fingerprint(state),
        "root": os.path.abspath(clips.root),
        "classes": clips.classes,
        "clips": [[name, label] for name, label in zip(clips.names, clips.labels, strict=True)],
        "splits": _splits(clips),
    }
    if (out / RECORD).exists() and not force:
        before = _read_record(out)
        if "flow" not in streams:  # earlier releases took --motion all the same
            before["settings"]["motion"] = settings.motion
        for name in ("settings", "streams", "weights", "root"):
            if before.get(name) != record[name]:
                raise FileExistsError(
                    f"{out} holds features with other {name}, {_short(before.get(name))}, not {_short(record[name])}; "
                    "--force overwrites them"
                )
        record["splits"] = _with_splits_of(before, record, out)
    with together():
        if ranks.first:
            _begin(out, record, state, clips.names, force)

    def work(number: int) -> int:
        files = {stream: _file(out, clips.names[number], stream) for stream in streams}
        if all(file.exists() for file in files.values()):
            return len(np.load(next(iter(files.values())), mmap_mode="r"))
        video = _prepare(clips[number].frames, both)
        for stream, file in files.items():
            pixels = video.frames if stream == "rgb" else video.motion
            found = _features(network, stream, pixels, ranks.device)  # type: ignore[arg-type]
            file.parent.mkdir(parents=True, exist_ok=True)
            with _files.replacing(file) as temporary:
                np.save(temporary, found)
        return len(video.frames)

    return each(range(len(clips)), work, ranks, progress)


def _begin(
    out: Path, record: dict[str, Any], state: dict[str, Tensor], names: Sequence[str], force: bool
) -> None:
    """Write the record and the backbone; with `force` old features go before the record that calls them its own, and not
    before there is a new one."""
    out.mkdir(parents=True, exist_ok=True)
    if not force and (out / BACKBONE).exists():
        _files.write_json(out / RECORD, record)
        return
    with _files.replacing_together(out / RECORD, out / BACKBONE) as (text, weights):
        text.write_text(_files.json_text(record), encoding="utf-8")
        _files.torch_save(out / BACKBONE, {k: v.cpu() for k, v in state.items()}, weights)
        for name in names if force else ():
            for stream in ("rgb", "flow"):
                _file(out, name, stream).unlink(missing_ok=True)


@torch.no_grad()
def _features(network: Network, stream: str, pixels: Tensor, device: torch.device) -> np.ndarray:
    parts, reader = [], cast(Any, network.streams[stream])
    for part in pixels.split(32):
        part = part.to(device)
        part = part.float() / 255 if part.dtype == torch.uint8 else part
        found = reader.features(part[:, None], stream == "flow")[:, 0]
        parts.append(found.cpu().clamp(max=65504).to(torch.float16))  # the largest number of float16
    return torch.cat(parts).numpy()


def _fingerprint(state: dict[str, Tensor]) -> str:
    """Distinguishes the weights of two backbones."""
    import hashlib

    digest = hashlib.sha256()
    for name, value in sorted(state.items()):
        digest.update(name.encode())
        digest.update(value.cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()[:16]


def _splits(clips: ClipFolder) -> dict[str, list[list[str]]]:
    """Names of the training and test clips in each official split; {} if there are none."""
    numbers = getattr(clips, "numbers", [])
    return {str(n): [[clips.names[k] for k in part] for part in clips.split(n)] for n in numbers}  # type: ignore[attr-defined]


def _with_splits_of(before: dict[str, Any], record: dict[str, Any], out: Path) -> dict[str, list[list[str]]]:
    """The splits of a record and of the one before, which were perhaps given with other clips readable."""
    both = {name for name, _ in before["clips"]} & {name for name, _ in record["clips"]}
    old, new = (
        {n: [sorted(both.intersection(part)) for part in split] for n, split in one["splits"].items()}
        for one in (before, record)
    )
    for n in sorted(old.keys() & new.keys()):
        if old[n] != new[n]:
            raise FileExistsError(f"{out} holds features of another split {n}; --force overwrites them")
    return {**before["splits"], **record["splits"]}


def _short(value: Any) -> str:
    return json.dumps(value) if value is not None else "none"


def _read_record(folder: Path) -> dict[str, Any]:
    try:
        record = json.loads((folder / RECORD).read_bytes())
        if record["format"] != FORMAT:
            raise ValueError("another format")
        Settings(**record["settings"], model="cnn")
        _ = record["classes"], record["splits"], [(str(n), int(k)) for n, k in record["clips"]]
        if not set(record["streams"]) <= {"rgb", "flow"} or not record["streams"]:
            raise ValueError("other streams")
    except FileNotFoundError:
        raise
    except (KeyError, TypeError, ValueError, OverflowError, RecursionError) as error:
        raise ValueError(f"{folder / RECORD} is not what `amstel video extract` wrote: {error}") from None
    return record


def is_folder(root: Path) -> bool:
    """Whether a folder holds features rather than clips."""
    return (root / RECORD).is_file()


class FeatureFolder:
    """The clips whose features are in a folder, read on access as memory-mapped `FeatureClip`s.

    Attributes:
        classes, labels, names: as of the clips.
        settings: {name: value} of the settings on which features depend.
        streams: "rgb" and "flow", of which there are features.
        weights: the fingerprint of the backbone that made the features.
        numbers: which official splits there are.

    Raises:
        FileNotFoundError, ValueError: there is no record, or it is broken; on reading, a file is.
    """

    def __init__(self, root: str | os.PathLike):
        self.root = Path(root)
        record = _read_record(self.root)
        self.classes: list[str] = record["classes"]
        self.names = [name for name, _ in record["clips"]]
        self.labels = [label for _, label in record["clips"]]
        self.settings, self.streams = record["settings"], tuple(record["streams"])
        self.weights: str | None = record.get("weights")
        self._splits = record["splits"]
        self.numbers = sorted(int(n) for n in self._splits)

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, index: int, /) -> FeatureClip:
        if not -len(self) <= index < len(self):
            raise IndexError(f"`index` must be below {len(self)}, got {index}")
        maps = {stream: self._mapped(self.names[index], stream) for stream in self.streams}
        if len({len(m) for m in maps.values()}) > 1:
            raise ValueError(f"{self.root} must hold as many frames of {self.names[index]} of rgb as of flow")
        first = maps[self.streams[0]]
        return FeatureClip(
            maps.get("rgb", first), self.labels[index], self.names[index], motion=maps.get("flow")
        )

    def _mapped(self, name: str, stream: str) -> Tensor:
        file = _file(self.root, name, stream)
        side = self.settings["frame_size"] // 32
        shape = (4096,) if self.settings["layer"] == "fc7" else (512, side, side)
        try:
            # Copy on write: what is read stays in the file's own pages, which the system drops when it needs room.
            array = np.load(file, mmap_mode="c")
        except FileNotFoundError:
            raise FileNotFoundError(
                f"{file} does not exist; amstel video extract, run again, creates it"
            ) from None
        except _files.DAMAGED_ARRAY as error:
            raise ValueError(f"{file} is not a feature file: {error}") from None
        if array.dtype != np.float16 or array.shape[1:] != shape or not len(array):
            raise ValueError(
                f"{file} must hold float16 [frames, {', '.join(map(str, shape))}], got {array.dtype} {list(array.shape)}"
            )
        return torch.from_numpy(array)

    def _identity(self) -> list[Any]:
        files = [[_file(self.root, name, stream) for stream in self.streams] for name in self.names]
        sizes = [[_files.size_of(file) for file in some] for some in files]
        return list(zip(self.names, self.labels, sizes, [self.weights] * len(self), strict=True))

    def check(self, strict: bool = False) -> list[tuple[str, str]]:
        """Leave out the clips whose features are missing or broken, and return (name, reason) for each; with `strict`, raise."""
        bad, good = [], []
        for index, name in enumerate(self.names):
            try:
                self[index]
                good.append(index)
            except (ValueError, OSError) as error:
                if strict:
                    raise
                bad.append((name, str(error)))
        gone = set(self.labels) - {self.labels[k] for k in good}
        if gone:
            said = ", ".join(self.classes[k] for k in sorted(gone))
            raise ValueError(f"{self.root} holds no features of {said}; the first: {bad[0][1]}")
        self.names, self.labels = [self.names[k] for k in good], [self.labels[k] for k in good]
        return bad

    def split(self, number: int = 1) -> tuple[list[int], list[int]]:
        """Numbers of the training clips and of the test clips in an official split."""
        if number not in self.numbers:
            known = ", ".join(map(str, self.numbers)) or "none: give --lists to amstel video extract"
            _check.fail("number", f"a split of {self.root} ({known})", number)
        numbers = {name: k for k, name in enumerate(self.names)}
        train, test = self._splits[str(number)]
        return [numbers[n] for n in train if n in numbers], [numbers[n] for n in test if n in numbers]

    def backbone(self) -> dict[str, Tensor]:
        """The weights that computed the features."""
        return torch.load(self.root / BACKBONE, map_location="cpu", weights_only=True)

    def of_network(self, network: Network) -> None:
        """ValueError if the backbone of a trained network has other weights than the one that made the features."""
        first: Any = network.streams[network.settings.streams[0]]
        own = _fingerprint(first.backbone.state_dict())
        if self.weights is not None and self.weights != own:
            raise ValueError(
                f"{self.root} must hold features of the network's own backbone, whose weights are {own}, got those of a "
                f"backbone with other weights, {self.weights}"
            )

    def fit(self, settings: Settings, training: bool = True) -> None:
        """ValueError if a network with these `settings` cannot read the features or be trained on them."""
        for name in OF_FRAMES:
            value = asdict(settings)[name]
            if name == "motion" and "flow" not in self.streams:
                continue
            if value != self.settings[name]:
                _check.fail(name, f"{self.settings[name]}, as for the features of {self.root}", value)
        for name in ("shift", "flip", "brightness"):
            if training and getattr(settings, name):
                _check.fail(
                    name,
                    "left out, because the features come from unaugmented frames",
                    getattr(settings, name),
                )
        needed = {*settings.streams, *(["flow"] if settings.uses_motion else [])}
        if lacking := needed - set(self.streams):
            raise ValueError(
                f"{self.root} must hold the features of {' and '.join(sorted(needed))} for {settings.model}, got "
                f"{', '.join(self.streams)}: extract those of {sorted(lacking)[0]} too (--stream both)"
            )
