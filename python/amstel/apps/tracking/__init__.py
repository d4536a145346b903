"""Tracking an object from its first box: training of the matching function, and its use."""
