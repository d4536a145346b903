"""Published training protocols, end to end."""

from amstel.recipes import gcn, karate, mri, restore, sint, video_lstm

__all__ = ["gcn", "karate", "mri", "restore", "sint", "video_lstm"]
