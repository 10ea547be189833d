"""Bytes: RFC 6455 frames on a real socket, driven by gevent's hub or by a thread.

Law: knows no channels and no Flask. Nothing here writes into a half-sent frame, waits for a peer, or
reads more than it may keep.
"""
