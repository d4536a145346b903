"""Videos through PyAV: frame by frame, in the orientation in which a player shows them, with their times."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from amstel._optional import need
from amstel._words import counted
from amstel.media.images import on_black

_PQ, _HLG = 16, 18  # transfer functions of HDR, in FFmpeg's numbers
BT709, _BT601, _UNKNOWN = 1, 5, 2  # matrices, too


def _av() -> Any:
    return need("av", extra="video", purpose="amstel.media.video")


def converter() -> Any:
    """What changes the pixel format of frames, for all of a video: one that a frame makes for itself starts threads of
    its own, which takes up to a hundred times longer than the frame."""
    return need("av.video.reformatter", extra="video", purpose="amstel.media.video").VideoReformatter()


def location(path: str | os.PathLike) -> str:
    """The name as FFmpeg takes it, to which `a:b.mp4` alone would be the protocol `a`."""
    return f"file:{os.fspath(path)}"


def matrix(height: int, width: int) -> int:
    """The matrix from R'G'B' to Y'CbCr of a video that names none, in FFmpeg's numbers: as players take it, that of
    BT.709 where it is larger than standard television was, else that of BT.601."""
    return BT709 if width >= 1280 or height > 576 else _BT601


class Video:
    """A video file, decoded frame by frame; use it in a `with`.

    Args:
        path: what FFmpeg reads.

    Attributes:
        count: number of frames that the file announces, or None.
        rate: mean number of frames per second, or None.
        reached: frames given so far.

    Raises:
        ValueError: it cannot be read or holds no video. The message names the file.
        ImportError: the extra [video] is missing.
    """

    def __init__(self, path: str | os.PathLike):
        self.path, self.reached, self._ended_by = Path(path), 0, None
        self._error = _av().error.FFmpegError
        try:
            self._container = _av().open(location(path), metadata_errors="replace")
        except self._error as error:
            raise self._unreadable(error) from None
        # Not a cover picture, if there is something better.
        self._stream = self._container.streams.best("video")
        if self._stream is None:
            self._container.close()
            raise ValueError(f"{self.path} must hold a video, got a file without a video stream")
        cover = getattr(_av().stream.Disposition, "attached_pic", 0)
        if self._stream.disposition & cover and self._container.streams.audio:
            self._container.close()
            raise ValueError(f"{self.path} must hold a video, got sound with a cover picture")
        self._stream.thread_type = "AUTO"
        self._decoder = _with_alpha(self._stream)
        self.count: int | None = self._stream.frames or None
        self.rate: float | None = float(self._stream.average_rate) if self._stream.average_rate else None

    def __enter__(self) -> Video:
        return self

    def __exit__(self, *error: Any) -> None:
        self._container.close()

    def __iter__(self) -> Iterator[tuple[np.ndarray, float | None]]:
        """(frame uint8 [H, W, 3], its time in seconds or None).

        Packets that are damaged are left out, and so is the end of a file that was cut: a warning says so, with the
        number of the frame that was reached.
        """
        shape = self._stream.sample_aspect_ratio
        if shape and shape != 1:
            warnings.warn(
                f"{self.path} has pixels that are {float(shape):.3g} times as wide as high; a player stretches them, "
                "here they and all boxes stay as stored",
                stacklevel=2,
            )
        packets = hidden = damaged = 0
        time = problem = None
        turn = _Turn(self.path)
        for packet in self._packets():
            packets += packet.size > 0
            hidden += packet.is_discard
            damaged += packet.is_corrupt
            try:
                frames = packet.decode() if self._decoder is None else self._decoder.decode(packet)
            except self._error as error:
                damaged, problem = damaged + 1, error
                continue
            for frame in frames:
                self.reached += 1
                damaged += bool(frame.is_corrupt)
                time = frame.time if frame.time is not None else time
                yield turn(frame), frame.time
        problem = problem or self._ended_by
        if not self.reached:
            if problem is not None:
                raise self._unreadable(problem)
            raise ValueError(f"{self.path} must hold at least one frame, got none")
        if missing := self._cut(packets, hidden, damaged + (self._ended_by is not None), time):
            warnings.warn(
                f"{self.path} is damaged or cut: {missing}; frame {self.reached} is the last", stacklevel=2
            )

    def _packets(self) -> Iterator[Any]:
        """Packets of the video, to the end of the file or to where it cannot be read on, and one that ends them."""
        source = self._container.demux(self._stream)
        while True:
            try:
                packet = next(source)
            except StopIteration:
                return
            except self._error as error:
                self._ended_by = error
                last = _av().Packet()
                last.stream = self._stream
                yield last
                return
            yield packet

    def _cut(self, packets: int, hidden: int, damaged: int, time: float | None) -> str:
        """What is missing or damaged, if something is."""
        found = [f"{damaged} of its packets or frames are damaged"] if damaged else []
        if self.count is not None:
            # An edit list hides frames that are there, and a packed stream of DivX has one frame less than packets.
            if packets < self.count or self.reached + hidden < self.count - 1:
                found.insert(0, f"it announces {counted(self.count, 'frame')}")
        elif time is not None and self.rate:
            stream, only = self._stream, len(self._container.streams.get()) == 1
            if stream.duration is not None and stream.time_base is not None:
                seconds = float(stream.duration * stream.time_base)
            else:
                seconds = (self._container.duration or 0) / 1e6 if only else 0.0
            begin = float((stream.start_time or 0) * (stream.time_base or 0))
            # How long the last frame is shown is not known: in a file of one rate a frame, in others up to half a second.
            room = min(0.5, 0.05 * seconds) if self.reached > 1 else 0.5
            if seconds - (time - begin) > max(1.5 / self.rate, room):
                found.insert(0, f"it announces {seconds:.1f} seconds")
        return ", ".join(found)

    def _unreadable(self, error: Any) -> ValueError:
        return ValueError(f"{self.path} must be a video that can be read, got: {error.strerror}")


def _with_alpha(stream: Any) -> Any:
    """A decoder for a WebM that says that it has an alpha channel, which FFmpeg's own decoders leave out; else None."""
    name = {"vp8": "libvpx", "vp9": "libvpx-vp9"}.get(stream.codec_context.name)
    if stream.metadata.get("alpha_mode") != "1" or name not in _av().codecs_available:
        return None
    decoder = _av().CodecContext.create(name, "r")
    decoder.extradata = stream.codec_context.extradata
    return decoder


class _Turn:
    """Frames of PyAV as arrays, turned and mirrored by their display matrix."""

    def __init__(self, path: Path):
        self.path, self._warned = path, False
        self._converter = converter()

    def __call__(self, frame: Any) -> np.ndarray:
        if frame.colorspace == _UNKNOWN and frame.color_trc not in (_PQ, _HLG):
            if matrix(frame.height, frame.width) == BT709 and not frame.format.is_rgb:
                frame.colorspace = BT709  # FFmpeg takes that of BT.601
        if frame.color_trc in (_PQ, _HLG):
            from amstel.media import hdr

            array = hdr.tone_map(frame, self._converter)
        elif frame.format.name != "pal8" and any(part.is_alpha for part in frame.format.components):
            # Not straight to rgba: FFmpeg leaves out columns at the right where the width is no multiple of 16.
            array = on_black(self._converter.reformat(frame, format="gbrap").to_ndarray())
        else:
            array = self._converter.reformat(frame, format="rgb24").to_ndarray()
        # The matrix maps (x, y) of the file to (a x + c y, b x + d y) on the screen, all in units of 2^16.
        shown = next((bytes(data) for data in frame.side_data if data.type.name == "DISPLAYMATRIX"), None)
        if shown is None:
            return array
        a, b, _, c, d = np.frombuffer(shown, np.int32)[:5] / 65536
        if abs(b) < 0.01 and abs(c) < 0.01 and a and d:
            across, down = a < 0, d < 0
        elif abs(a) < 0.01 and abs(d) < 0.01 and b and c:
            array, across, down = array.swapaxes(0, 1), c < 0, b < 0
        else:
            if not self._warned:
                self._warned = True
                warnings.warn(f"{self.path} is to be shown at an angle, which is not supported", stacklevel=3)
            return array
        return np.ascontiguousarray(array[:: -1 if down else 1, :: -1 if across else 1])
