"""Copy the sound of a video into another one that shows its frames."""

from __future__ import annotations

import heapq
import math
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from amstel import _files
from amstel._optional import need
from amstel.media.decode import location

_PREROLL = 0.1  # seconds before the first that is heard, which a decoder needs; an edit list hides them
_RATE = 48000  # samples per second, where AAC does not have those of the input


def _open(path: str | os.PathLike) -> Any:
    av = need("av", extra="video", purpose="amstel.media.sound")
    return av.open(location(path), metadata_errors="replace")


def has_sound(path: str | os.PathLike) -> bool:
    """Whether it is a file with a stream of audio."""
    if not Path(path).is_file():
        return False
    try:
        with _open(path) as container:
            return bool(container.streams.audio)
    except need("av", extra="video").error.FFmpegError:
        return False


def add_sound(
    path: str | os.PathLike, source: str | os.PathLike, begin: float = 0.0, end: float = math.inf
) -> None:
    """Add the first audio stream of a video to an MP4 that shows its frames from `begin` on.

    Packets that MP4 supports are copied; everything else, and PCM, which few players support in MP4, becomes AAC. A new file
    is written beside it and renamed, so after an error the old one is unchanged.

    Args:
        path: the MP4 to change.
        source: the video with the sound.
        begin, end: the part to use, in seconds from the first frame of `source`, as in `Frames.time`.

    Raises:
        av.error.FFmpegError: the sound cannot be read or written.
        ValueError: there is no sound between these times.
        OSError: the file cannot be written.
    """
    av = need("av", extra="video", purpose="amstel.media.sound")
    with _open(source) as container:
        picture = container.streams.best("video")
        first = next(container.decode(picture)).time if picture is not None else None
    start, stop = begin + (first or 0.0), end + (first or 0.0)
    with _files.replacing(path) as temporary, _open(path) as silent, _open(source) as container:
        if not container.streams.audio:
            raise ValueError(f"{source} must have sound, got a file without an audio stream")
        audio = container.streams.audio[0]
        with av.open(location(temporary), "w", format="mp4") as output:
            shown = output.add_stream_from_template(silent.streams.video[0])
            name = audio.codec_context.codec.canonical_name
            heard = _between(container.demux(audio), start, stop)
            if name in output.supported_codecs and not name.startswith("pcm_"):
                sound = _onto(output.add_stream_from_template(audio), heard, start)
            else:  # in packets of its own, where those of the input may last longer than what is heard
                sound = _between(_encoded(output, audio, heard, start), 0.0, stop - start)
            pictures = _onto(shown, silent.demux(silent.streams.video[0]), 0.0)
            silence = True
            for packet in heapq.merge(pictures, sound, key=lambda packet: packet.dts * packet.time_base):
                silence &= packet.stream is shown
                output.mux(packet)
            if silence:
                raise ValueError(f"{source} must have sound from {begin:g} s on, got none")


def _between(packets: Iterator[Any], begin: float, end: float) -> Iterator[Any]:
    """The packets of sound between two times, and those just before that a decoder needs."""
    for packet in packets:
        at = packet.dts if packet.pts is None else packet.pts
        if at is None:
            yield packet  # the one that ends them
            return
        time = float(at * packet.time_base)
        if time >= end:
            return
        if time + float((packet.duration or 0) * packet.time_base) > begin - _PREROLL:
            yield packet


def _onto(stream: Any, packets: Iterator[Any], begin: float) -> Iterator[Any]:
    """The packets as those of another stream, in which `begin` is 0."""
    for packet in packets:
        if packet.dts is None or not packet.size:
            continue
        shift = round(begin / packet.time_base)
        packet.dts -= shift
        packet.pts = None if packet.pts is None else packet.pts - shift
        packet.stream = stream
        yield packet


def _encoded(output: Any, audio: Any, packets: Iterator[Any], begin: float) -> Iterator[Any]:
    """The packets as AAC, of one channel or two."""
    av = need("av", extra="video", purpose="amstel.media.sound")
    known = av.Codec("aac", "w").audio_rates or []
    stream = output.add_stream("aac", rate=audio.rate if audio.rate in known else _RATE)
    stream.layout = "mono" if audio.channels == 1 else "stereo"
    stream.bit_rate = 128_000 * stream.layout.nb_channels

    def coded() -> Iterator[Any]:
        for packet in packets:
            for frame in packet.decode():
                if frame.pts is not None:
                    frame.pts -= round(begin / frame.time_base)
                yield from stream.encode(frame)
        yield from stream.encode(None)

    return coded()
