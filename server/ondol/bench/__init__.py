"""The load generator behind `ondol bench`: drives any OpenAI-compatible server and reports figures.

Knows nothing about the daemon's inside: it sees URLs, server-sent events and the clock, so that
other servers are measured by the same tool in the same way. Invariant: a request that was sent is
counted, as a success or as a failure with its reason.
"""
