# amstel with everything its command line needs. For the CPU, or for NVIDIA GPUs (driver 580 or later):
#   docker build --target cpu -t amstel .        && docker run --rm -v "$PWD:/work" amstel demo
#   docker build --target cuda -t amstel:cuda .  && docker run --rm --gpus all -v "$PWD:/work" amstel:cuda info
# `--build-arg PIP_EXTRA_INDEX_URL=...` adds an index with CPU-only builds of torch, which save 4 GB in the first image.
ARG PYTHON=3.12

FROM python:${PYTHON}-slim-bookworm AS build
ARG PIP_EXTRA_INDEX_URL
RUN apt-get update && apt-get install -y --no-install-recommends g++ && rm -rf /var/lib/apt/lists/*
WORKDIR /src
COPY . .

FROM build AS wheel-cpu
RUN CMAKE_ARGS=-DAMSTEL_CUDA=OFF pip wheel --no-cache-dir --no-deps -w /wheels .

# The compiler that the tests use too (extra cuda-check), so no CUDA image is needed.
FROM build AS wheel-cuda
RUN pip install --no-cache-dir --target /opt/cuda nvidia-cuda-nvcc==13.0.88 nvidia-cuda-crt==13.0.88 \
    nvidia-nvvm==13.0.88 "nvidia-cuda-runtime==13.0.*" nvidia-cuda-cccl==13.0.85
RUN CUDACXX=/opt/cuda/nvidia/cu13/bin/nvcc CMAKE_ARGS=-DAMSTEL_CUDA=ON \
    pip wheel --no-cache-dir --no-deps -w /wheels .

FROM python:${PYTHON}-slim-bookworm AS runtime
ARG PIP_EXTRA_INDEX_URL
RUN useradd --create-home --uid 1000 amstel
WORKDIR /work
ENTRYPOINT ["amstel"]
CMD ["info"]

FROM runtime AS cuda
ENV NVIDIA_VISIBLE_DEVICES=all NVIDIA_DRIVER_CAPABILITIES=compute,utility
RUN --mount=from=wheel-cuda,source=/wheels,target=/wheels pip install --no-cache-dir "$(ls /wheels/*.whl)[all]"
USER amstel

# The last one is what a plain `docker build .` makes.
FROM runtime AS cpu
RUN --mount=from=wheel-cpu,source=/wheels,target=/wheels pip install --no-cache-dir "$(ls /wheels/*.whl)[all]"
USER amstel
