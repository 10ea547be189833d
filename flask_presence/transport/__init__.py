"""The transport: RFC 6455 frames on sockets, driven by gevent's hub or by a thread.

Rule: knows neither channels nor Flask. Nothing here waits for a peer, writes into a frame that is half sent, or reads
more than it may keep.
"""
