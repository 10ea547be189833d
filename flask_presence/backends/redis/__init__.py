"""Membership in Redis, for several workers and hosts.

Law: Redis decides each change in one script; what it holds is an index of the live connections, and can always be
made anew from them.

From the inside out: `keys`, `documents` and `scripts` say what stands in Redis; `operations`, `nodes`, `census`,
`orders` and `inspection` what is done with it, sans IO; `client`, `pipeline` and `subscriber` drive that; `replica`,
`room`, `rooms` and `joining` are the channels as this process has them, `link` and `keeper` its own life; `worker`
puts them together, `backend` is the front door.
"""
