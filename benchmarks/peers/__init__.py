"""The servers that ours is measured beside. `python -m benchmarks.peers` installs what they need."""
