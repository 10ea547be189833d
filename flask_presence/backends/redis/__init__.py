"""The state in Redis, for several workers and hosts.

Rule: Redis decides each change in one script. What it holds is an index of live connections, and can be rebuilt from
them at any time.

Parts, each of which imports only from those before it: `store` (what is in Redis, and the operations on it, sans IO),
`client` (connections to Redis, which drive operations), `worker` (this process's share), `backend` (the entry point for
one Redis), `shards` (the entry point for several).
"""
