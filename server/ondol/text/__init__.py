"""The study: messages to token ids, token ids to text. Knows nothing about engines or HTTP."""
