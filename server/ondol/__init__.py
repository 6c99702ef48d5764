"""Ondol: a local chat serving daemon that keeps models warm on your own machine."""

__version__ = "0.1.0"
