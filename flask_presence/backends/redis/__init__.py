"""The state in Redis, for several workers and hosts.

Rule: Redis decides each change in one script. What it holds is an index of live connections, and can be rebuilt from
them at any time.

Three parts, each of which imports only from those before it: `store` (what is in Redis, and the operations on it, sans
IO), `client` (connections to Redis, which drive operations), `worker` (this process's share). `backend` is the entry
point.
"""
