"""Chaos: several real servers on real Redis servers, clients that act at random, and faults of every kind.

Rule: a client keeps its view by snapshots and events alone, none of which may be impossible. After the faults every
view is right again, as are the counts of every server and the data in Redis. What no fault touches notices nothing.
"""
