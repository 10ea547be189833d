"""The Flask app's side: its own code and logins, and the life of the process that serves it."""
