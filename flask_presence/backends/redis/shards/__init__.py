"""Several Redis servers, each with a part of the channels.

Rule: a shard is a whole `RedisBackend` that knows nothing of the others; only this part knows that there are several.
"""
