"""Connects the hub to a Flask app: calls the app's code, checks logins, and runs and ends the process's part."""
