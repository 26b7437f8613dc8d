"""Long runs: what is done to the server meanwhile, and how its processes fare."""
