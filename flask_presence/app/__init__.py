"""Connects the hub to a Flask app: calls the app's code, checks logins, and starts and ends the process's event loop
and connections."""
