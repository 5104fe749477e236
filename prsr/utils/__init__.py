"""Helpers for all layers: argument checks, files, memory, messages, torch settings, processes."""
