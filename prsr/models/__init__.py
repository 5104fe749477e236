"""The networks, their losses, and saved models."""
