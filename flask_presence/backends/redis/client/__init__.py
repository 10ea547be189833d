"""Connections to Redis: requests, pipelined operations, and subscriptions."""
