"""Entries and evidence on their way from one store to another, in a file."""
