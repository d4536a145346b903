"""Action recognition in videos, and localization of the actions."""
