"""An example app: a chat with a list of who is online."""
