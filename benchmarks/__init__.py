"""Measurements: each module prints one table, with bound and comparators from the same run."""
