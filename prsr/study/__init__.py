"""The human study: storage, schedule and report."""
