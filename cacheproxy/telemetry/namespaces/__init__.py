"""What namespaces are told apart by in the metrics, with bounds: gauges, and traffic."""
