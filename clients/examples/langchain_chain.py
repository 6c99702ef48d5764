"""A LangChain chain that streams: pip install langchain-openai; python langchain_chain.py [TEXT].

LangChain 체인으로 글을 요약합니다: python langchain_chain.py "요약할 글"
ONDOL_URL, ONDOL_MODEL and ONDOL_API_KEY choose server, model and key.
"""

import os
import sys

from langchain_core.output_parsers import StrOutputParser
from langchain_core.prompts import ChatPromptTemplate
from langchain_openai import ChatOpenAI

TEXT = "Ondol is the floor heating of Korean houses: smoke from the kitchen passes under stone floors."

model = ChatOpenAI(
    base_url=os.environ.get("ONDOL_URL", "http://127.0.0.1:8000") + "/v1",
    api_key=os.environ.get("ONDOL_API_KEY", "any"),
    model=os.environ.get("ONDOL_MODEL", "starter"),
    temperature=0,
    max_tokens=60,
)
prompt = ChatPromptTemplate.from_messages(
    [("system", "Summarize in one sentence, in the language of the text."), ("user", "{text}")]
)
for piece in (prompt | model | StrOutputParser()).stream({"text": sys.argv[1] if sys.argv[1:] else TEXT}):
    sys.stdout.write(piece)
    sys.stdout.flush()
sys.stdout.write("\n")
