"""This worker's part in a service on Redis: its heartbeat, its channels and their copies."""
