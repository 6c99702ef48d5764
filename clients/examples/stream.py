"""Streams one chat answer with the openai package: pip install openai; python stream.py [MESSAGE]."""

import sys

from openai import OpenAI

message = sys.argv[1] if len(sys.argv) > 1 else "Give me a short introduction to large language models."
client = OpenAI(base_url="http://127.0.0.1:8000/v1", api_key="any")
stream = client.chat.completions.create(
    model="starter", stream=True, messages=[{"role": "user", "content": message}]
)
for chunk in stream:
    sys.stdout.write(chunk.choices[0].delta.content or "")
    sys.stdout.flush()
sys.stdout.write("\n")
