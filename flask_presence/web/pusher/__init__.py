"""The routes of the Pusher dialect: the socket, the HTTP API, and the app's own signer.

Rule: without `PRESENCE_PUSHER_KEY` there are none of them.
"""
