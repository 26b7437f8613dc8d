"""What a run found: its figures, the checks on them, and how they are shown and compared."""
