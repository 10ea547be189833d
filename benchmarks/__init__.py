"""Measurements: what the transport costs, beside others, in one run."""
