"""Tests, one folder per subject. README.md says which file tests what."""
