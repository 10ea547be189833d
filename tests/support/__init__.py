"""What the tests share: real servers, real clients, and apps to serve."""
