"""Other servers under the same load, each in its own virtual environment."""
