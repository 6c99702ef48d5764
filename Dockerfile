# Ondol on a CPU, as a user without rights.
#
#   docker build -t ondol .
#   docker run -p 8000:8000 -e ONDOL_API_KEY=... -v ondol:/data ondol serve starter
#
# The build takes torch from pip's index. Where that offers a CUDA build, which is gigabytes larger, add
# PyTorch's CPU index (see pytorch.org): --build-arg PIP_EXTRA_INDEX_URL=...
# PIP_INDEX_URL names a mirror in the same way; pip reads both from the environment. For npm it is
# NPM_CONFIG_REGISTRY.

# What the web chat shows markdown, code and formulas with.
FROM node:22-slim AS web
ARG NPM_CONFIG_REGISTRY
WORKDIR /web
COPY clients/web/package.json clients/web/package-lock.json clients/web/vendor.mjs ./
RUN npm ci --ignore-scripts --omit=optional --no-audit --no-fund && node vendor.mjs

FROM python:3.12-slim AS build
ARG PIP_INDEX_URL
ARG PIP_EXTRA_INDEX_URL
WORKDIR /src
RUN python -m venv /opt/ondol
COPY pyproject.toml constraints.txt README.md LICENSE ./
COPY server ./server
# The package links to these three folders.
COPY configs/models ./configs/models
COPY clients/terminal ./clients/terminal
COPY clients/web ./clients/web
COPY --from=web /web/vendor ./clients/web/vendor
RUN /opt/ondol/bin/pip install --no-cache-dir --disable-pip-version-check -c constraints.txt .

FROM python:3.12-slim
RUN useradd --uid 10001 --no-create-home --home-dir /data --shell /usr/sbin/nologin ondol \
    && install -d -o ondol -g ondol /data
# The same path as in the build stage: the scripts of a virtual environment name their interpreter.
COPY --from=build /opt/ondol /opt/ondol
ENV PATH=/opt/ondol/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    ONDOL_HOME=/data/ondol \
    HF_HOME=/data/huggingface \
    ONDOL_HOST=0.0.0.0 \
    ONDOL_PORT=8000
USER ondol
WORKDIR /data
VOLUME /data
EXPOSE 8000
# A daemon that is reachable from outside needs a key: `serve` refuses to start without ONDOL_API_KEY or
# --allow-unauthenticated.
HEALTHCHECK --interval=15s --timeout=5s --start-period=120s --retries=3 \
    CMD ["python", "-c", "import os, urllib.request; urllib.request.urlopen('http://127.0.0.1:' + os.environ['ONDOL_PORT'] + '/health', timeout=4)"]
ENTRYPOINT ["ondol"]
CMD ["serve"]
