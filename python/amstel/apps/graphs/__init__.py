"""Node classification with graph convolutional networks."""
