"""Published training protocols, end to end."""

from amstel.recipes import gcn, karate, video_lstm

__all__ = ["gcn", "karate", "video_lstm"]
