"""This worker's share of a service on Redis: its heartbeat, its channels and their copies."""
