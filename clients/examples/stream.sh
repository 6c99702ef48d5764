#!/bin/sh
# Streams one chat answer with curl, as server-sent events. Usage: stream.sh [MESSAGE]
# curl로 답변을 토큰 단위로 받습니다. 사용법: stream.sh "한국의 온돌을 한 문장으로 설명해 줘."
# ONDOL_URL, ONDOL_MODEL and ONDOL_API_KEY choose server, model and key.
url="${ONDOL_URL:-http://127.0.0.1:8000}"
model="${ONDOL_MODEL:-starter}"
message="${1:-Give me a short introduction to large language models.}"
body=$(python3 -c 'import json, sys
print(json.dumps({"model": sys.argv[1], "stream": True, "messages": [{"role": "user", "content": sys.argv[2]}]}))' "$model" "$message")
exec curl -sS -N --fail-with-body "$url/v1/chat/completions" \
  -H "authorization: Bearer ${ONDOL_API_KEY:-any}" -H 'content-type: application/json' -d "$body"
