"""Traffic replayed through the thresholds of the semantic tier, in this process."""
