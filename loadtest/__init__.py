"""Measures speed and memory, and replays traffic; never imported by the package."""
