"""Engines in an interpreter of their own: a session here, its work in another process, JSON and Arrow files between them."""
