"""The model in the kitchen: built without weights, weights streamed in."""
