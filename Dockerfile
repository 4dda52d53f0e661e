# docker build -t spacenet5 .
# docker run --gpus all --shm-size 8g -p 127.0.0.1:8888:8888 -v "$PWD/data:/data" -v "$PWD/outputs:/outputs" spacenet5
# docker run --gpus all --shm-size 8g -v "$PWD/data:/data" -v "$PWD/outputs:/outputs" spacenet5 spacenet5 pipeline --preset demo
# docker run --gpus all --shm-size 8g -v "$PWD/data:/data" -v "$PWD/outputs:/outputs" spacenet5 train.sh /data/train/AOI_7_Moscow /data/train/AOI_8_Mumbai
#
# Without a GPU: leave --gpus all out. --shm-size: PyTorch's loaders hand chips over in /dev/shm, of
# which Docker gives 64 MB.
# Inside, everything runs as mapper, user 1000. Make data and outputs before: Docker makes missing
# ones as root, and then nothing can be written there. Where you are not user 1000, add
# --user "$(id -u):$(id -g)": data and outputs are yours then; the notebooks in the image are to be
# read, not saved.
#
# CUDA: torch 2.13.0 of PyPI requires cuda-toolkit 13.0.3, cuDNN 9.20, NCCL 2.29 and Triton as packages
# of their own, so that any base has CUDA's runtime after `make install`. The host brings only its
# driver (580 or newer, as CUDA 13 asks) and nvidia-container-toolkit. Where a site demands one of
# NVIDIA's images (Python 3.12 and a second CUDA runtime, which torch does not use):
# docker build --build-arg BASE=nvidia/cuda:13.0.2-runtime-ubuntu24.04 -t spacenet5 .
ARG BASE=python:3.11-slim-bookworm
# hadolint ignore=DL3006
FROM ${BASE}

ENV NVIDIA_VISIBLE_DEVICES=all NVIDIA_DRIVER_CAPABILITIES=compute,utility
ENV DEBIAN_FRONTEND=noninteractive PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1 PYTHONUNBUFFERED=1
# Debian keeps only the newest version of a package: a pinned one would fail to install after the next security update
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install -y --no-install-recommends make curl ca-certificates \
    && { command -v python3 || apt-get install -y --no-install-recommends python3 python3-venv; } \
    && rm -rf /var/lib/apt/lists/*

# Ubuntu's images have a user 1000 already
RUN { ! id ubuntu || userdel --remove ubuntu; } \
    && useradd --create-home --uid 1000 mapper && chmod 1777 /home/mapper && mkdir /data /outputs /workspace && chown mapper /data /outputs /workspace
USER 1000
WORKDIR /workspace

# dependencies first: they change less often than the code
COPY --chown=mapper pyproject.toml constraints.txt Makefile README.md LICENSE settings.ini ./
COPY --chown=mapper scripts ./scripts
COPY --chown=mapper spacenet5_nb ./spacenet5_nb
COPY --chown=mapper configs ./configs
# --build-arg TORCH=cpu: PyTorch without CUDA, an image of less than half the size
ARG TORCH=
RUN make install PYTHON=python3 TORCH="$TORCH"
COPY --chown=mapper . .
RUN .venv/bin/jupyter labextension disable "@jupyterlab/apputils-extension:announcements"

# the contest's contract: train.sh <data folder> ..., test.sh <data folder> ... <solution.csv>
# (HOME and USER for whoever --user makes of mapper: caches need a home, and PyTorch a name)
ENV HOME=/home/mapper USER=mapper
ENV PATH=/workspace/scripts:/workspace/.venv/bin:$PATH SPACENET5_DATA=/data SPACENET5_OUTPUTS=/outputs SPACENET5_ROOT=/workspace
VOLUME ["/data", "/outputs"]
EXPOSE 8888
# about JupyterLab; --no-healthcheck where the container trains or predicts instead
HEALTHCHECK --interval=30s --timeout=5s --start-period=20s CMD ["curl", "--fail", "--silent", "--output", "/dev/null", "http://127.0.0.1:8888/api"]
# Jupyter prints an address with a token; without the token nothing answers
CMD ["jupyter", "lab", "--ip=0.0.0.0", "--port=8888", "--no-browser", "--notebook-dir=/workspace/nbs"]
