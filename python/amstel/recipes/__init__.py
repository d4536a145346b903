"""Published training protocols, end to end."""
