"""What a running service looks like from outside: JSON payloads, Prometheus metrics, and how numbers are formatted.

Rule: the stats page, the JSON API and the commands all show the payloads of `payloads`. Nothing here changes any state.
"""
