"""The hub: it handles the requests of this process's connections, and sends them what they must hear.

Rule: knows neither Flask nor sockets. Its state belongs to one event loop: whatever touches it runs there, and nothing
that runs there blocks.
"""
