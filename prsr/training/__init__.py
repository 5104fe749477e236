"""Training: settings, batches, the trainer and its loop."""
