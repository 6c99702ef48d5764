#!/bin/sh
# Streams one chat answer with curl. Usage: stream.sh [MESSAGE]; ONDOL_URL and ONDOL_MODEL choose server and model.
url="${ONDOL_URL:-http://127.0.0.1:8000}"
model="${ONDOL_MODEL:-starter}"
message="${1:-Give me a short introduction to large language models.}"
body=$(python3 -c 'import json, sys
print(json.dumps({"model": sys.argv[1], "stream": True, "messages": [{"role": "user", "content": sys.argv[2]}]}))' "$model" "$message")
exec curl -sS -N "$url/v1/chat/completions" -H 'content-type: application/json' -d "$body"
