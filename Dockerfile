# Two images with one environment:  docker build -t synthclones .        docker build --target cpu -t synthclones-cpu .
# Weights are not in them: a node fetches the pinned commit once into its cache, or reads a directory of a shared disk.
# An own package index comes by the usual variables of pip and uv as build arguments.
# Both bases are Ubuntu 24.04, so both have the same Python, to the patch: Ray refuses to mix them.
ARG CPU_BASE=ubuntu:24.04
ARG GPU_BASE=nvidia/cuda:13.0.1-base-ubuntu24.04

FROM ${CPU_BASE} AS setup
ARG PIP_INDEX_URL UV_DEFAULT_INDEX
RUN apt-get update && apt-get install -y --no-install-recommends ca-certificates make python3 python3-pip \
    && rm -rf /var/lib/apt/lists/*
RUN install -d -o 1000 -g 1000 /opt/synthclones
USER 1000:1000
WORKDIR /opt/synthclones
# Only what the set-up reads: a changed source does not install 8 GB again.
COPY --chown=1000:1000 Makefile requirements.lock ./
RUN HOME=/tmp UV_CACHE_DIR=/tmp/uv make setup && rm -rf .uv /tmp/uv
COPY --chown=1000:1000 LICENSE NOTICE pyproject.toml ./
COPY --chown=1000:1000 pipeline pipeline
COPY --chown=1000:1000 jobs jobs
COPY --chown=1000:1000 tune tune

FROM ${CPU_BASE} AS cpu
RUN apt-get update && apt-get install -y --no-install-recommends ca-certificates python3 \
    && rm -rf /var/lib/apt/lists/*
COPY --from=setup /opt/synthclones /opt/synthclones
# KubeRay starts Ray in a login shell, which sets PATH anew.
RUN echo 'PATH=/opt/synthclones/.venv/bin:$PATH' > /etc/profile.d/synthclones.sh
ENV PATH=/opt/synthclones/.venv/bin:$PATH PYTHONPATH=/opt/synthclones HOME=/tmp RAY_USAGE_STATS_ENABLED=0
USER 1000:1000
WORKDIR /opt/synthclones
CMD ["ray", "--version"]

FROM ${GPU_BASE} AS gpu
RUN apt-get update && apt-get install -y --no-install-recommends ca-certificates python3 \
    && rm -rf /var/lib/apt/lists/*
COPY --from=setup /opt/synthclones /opt/synthclones
RUN echo 'PATH=/opt/synthclones/.venv/bin:$PATH' > /etc/profile.d/synthclones.sh
ENV PATH=/opt/synthclones/.venv/bin:$PATH PYTHONPATH=/opt/synthclones HOME=/tmp RAY_USAGE_STATS_ENABLED=0
USER 1000:1000
WORKDIR /opt/synthclones
CMD ["ray", "--version"]
