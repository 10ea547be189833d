"""What the tests share: a real server, a real client, and apps to serve."""
