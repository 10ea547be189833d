"""Connections to Redis: for calls, for pipelined operations, and for subscriptions."""
