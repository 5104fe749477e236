"""Experiments of the paper: data, training, samples and result."""
