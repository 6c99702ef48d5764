"""The one generation path: a prompt's token ids in, text deltas out."""
