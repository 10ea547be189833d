"""The Pusher dialect: names, signatures, data and frames of the Pusher Channels protocol, version 7.

Rule: values and rules only. The channels, their order and their members are the ones of the native protocol.
"""
