"""The engine alone, without HTTP: what it is compared with, its limits, and the report."""
