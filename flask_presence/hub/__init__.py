"""The connections of this process: who asks what, what it means, who must hear of it.

Law: knows neither Flask nor sockets. Its state belongs to one event loop: everything that touches it runs
there, and nothing that runs there blocks.
"""
