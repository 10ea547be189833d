"""Membership in Redis, for several workers and hosts.

Law: Redis decides each change in one script; what it holds is an index of the live connections, and can always be
made anew from them.
"""
