"""Event loops: one interface, one implementation per kind of server, and values that come later."""
