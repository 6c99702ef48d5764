"""Streams one chat answer with the openai package: pip install openai; python stream.py [MESSAGE].

openai 패키지로 답변을 흘려 받습니다: python stream.py "한국의 온돌을 한 문장으로 설명해 줘."
ONDOL_URL, ONDOL_MODEL and ONDOL_API_KEY choose server, model and key.
"""

import os
import sys

from openai import OpenAI

message = sys.argv[1] if len(sys.argv) > 1 else "Give me a short introduction to large language models."
client = OpenAI(
    base_url=os.environ.get("ONDOL_URL", "http://127.0.0.1:8000") + "/v1",
    api_key=os.environ.get("ONDOL_API_KEY", "any"),
)
stream = client.chat.completions.create(
    model=os.environ.get("ONDOL_MODEL", "starter"),
    stream=True,
    messages=[{"role": "user", "content": message}],
)
for chunk in stream:
    sys.stdout.write(chunk.choices[0].delta.content or "")
    sys.stdout.flush()
sys.stdout.write("\n")
