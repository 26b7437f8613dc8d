"""Replays traffic through the thresholds, to see what the cache would do before it is turned on."""
