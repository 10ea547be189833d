"""Tests: `unit/` for the pure layers, `server/` for everything that a real server and real sockets show."""
