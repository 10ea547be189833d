"""Values and rules: what a channel, a member, a guard and a wire message are.

Law: nothing here imports Flask, gevent or a socket, does IO, takes a lock or knows the time.
Callers pass `now`.
"""
