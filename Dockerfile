# axtune and its extras in the versions of scripts/lock: for NVIDIA cards, or for CPUs alone.
#   docker build --tag axtune .                                   cards under a driver of CUDA 13
#   docker build --tag axtune:cpu --build-arg BUILD=cpu .
#   docker run --rm --gpus all --volume "$PWD/data:/home/axtune/data" \
#       --volume "$PWD/runs:/home/axtune/runs" --volume axtune-models:/home/axtune/.cache/huggingface \
#       axtune train recipes/sft_lora.yaml data.train=data/chat.jsonl
# The user in it is number 1000; data and runs must be readable and writable for that one, or give
# --build-arg USER_ID=$(id -u). compose.yaml has vLLM beside it.
# Size: about 2.4 GB for CPUs, of which the environment has 2.2 GB; for cards about 7 GB, mostly
# torch and NVIDIA's libraries; both unpacked, and reckoned from environments outside of Docker.
# Linted by hadolint (tests/test_docker.py). Never built or run so far: there was no Docker where it
# was written. What pip does in it was run outside of it.
ARG PYTHON=3.12

FROM python:${PYTHON}-bookworm AS build
ARG PYTHON
ARG BUILD=cuda
SHELL ["/bin/bash", "-o", "pipefail", "-c"]
# llama.cpp is built here: for every x86_64 machine, and without a library that the slim image lacks.
ENV CMAKE_ARGS="-DGGML_NATIVE=OFF -DGGML_OPENMP=OFF" \
    PIP_DISABLE_PIP_VERSION_CHECK=1 \
    PIP_NO_CACHE_DIR=1
WORKDIR /src
COPY scripts/lock scripts/lock
# PyTorch's own index has the CPU build; whatever an index gives is held against its digest.
RUN python -m venv /opt/axtune \
    && if [ "$BUILD" = cpu ]; then \
        export PIP_EXTRA_INDEX_URL=https://download.pytorch.org/whl/cpu; fi \
    && /opt/axtune/bin/pip install --no-deps --require-hashes \
        --requirement "scripts/lock/axtune-$BUILD-py$(echo "$PYTHON" | tr --delete .).txt"
COPY pyproject.toml README.md LICENSE ./
COPY recipes recipes
COPY data_templates data_templates
COPY axtune axtune
RUN /opt/axtune/bin/pip install --no-deps . && /opt/axtune/bin/pip check

FROM python:${PYTHON}-slim-bookworm
ARG USER_ID=1000
RUN useradd --create-home --uid "$USER_ID" axtune
COPY --from=build /opt/axtune /opt/axtune
ENV PATH=/opt/axtune/bin:$PATH \
    PYTHONUNBUFFERED=1
USER $USER_ID
WORKDIR /home/axtune
# Made here, so that a volume mounted over them belongs to the user.
RUN mkdir -p data runs .cache/huggingface
COPY --chown=$USER_ID recipes recipes
COPY --chown=$USER_ID data_templates data_templates
HEALTHCHECK --interval=1m --timeout=30s --start-period=30s CMD ["axtune", "--version"]
ENTRYPOINT ["axtune"]
CMD ["--help"]
