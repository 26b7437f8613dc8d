"""Servers that a run starts: cacheproxy itself, and bare ones to compare it with."""
