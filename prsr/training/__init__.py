"""Training: settings, batches, the trainer and the training loop."""
