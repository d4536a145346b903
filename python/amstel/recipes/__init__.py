"""Published training protocols, end to end."""

from amstel.recipes import gcn, karate

__all__ = ["gcn", "karate"]
