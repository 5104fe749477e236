"""The paper's experiments, from data to result."""
