"""Hands results on to other tools: HdrHistogram logs, and Prometheus by its Pushgateway."""
