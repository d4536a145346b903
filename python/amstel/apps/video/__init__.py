"""Action recognition in videos, and where in them it happens."""
