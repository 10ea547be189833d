"""The Pusher dialect in the hub: its sessions, their requests, and how they hear what happens.

Rule: channels, members, limits and guards are those of the native dialect.
"""
