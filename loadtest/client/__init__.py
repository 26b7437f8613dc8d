"""Sends requests, and keeps a row for each: connections, generators, and their processes."""
