"""The terminal: one module per command group, and the composition root."""
