"""Finds the highest rate at which a server keeps its promises."""
