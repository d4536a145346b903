"""Tracking an object from its first box: training the matching function, and using it."""
