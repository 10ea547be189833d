"""The `flask presence` commands."""
