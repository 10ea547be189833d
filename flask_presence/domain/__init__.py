"""Values and rules: what a channel, a member, a guard and a wire message are.

Rule: nothing here imports Flask, gevent or sockets, does IO, takes a lock or reads a clock. Callers pass the time.
"""
