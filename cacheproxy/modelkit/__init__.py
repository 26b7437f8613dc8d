"""From a manifest to an installed INT8 model; used by the command line and by start-up only."""
