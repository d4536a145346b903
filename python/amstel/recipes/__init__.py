"""Published training protocols, end to end."""

from amstel.recipes import gcn, karate, sint, video_lstm

__all__ = ["gcn", "karate", "sint", "video_lstm"]
