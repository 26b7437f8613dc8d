"""Measures speed and memory: never run by the tests, never imported by the package."""
