"""The front door: HTTP in, HTTP out. The only room that knows FastAPI."""
