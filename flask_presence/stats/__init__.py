"""See what is going on: a page, JSON, metrics, and commands.

Law: all of them show the same shapes, made in `shapes`; nothing here changes who is where, but commands that say so.
"""
