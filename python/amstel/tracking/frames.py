"""Frames one at a time, as a tracker takes them: `amstel.media` has the readers and the writer."""

from amstel.media.images import image_array
from amstel.media.reading import Frames
from amstel.media.writing import VideoWriter

__all__ = ["Frames", "VideoWriter", "image_array"]
