# docker build -t spacenet5 .
# docker run --gpus all -p 127.0.0.1:8888:8888 -v "$PWD/data:/data" -v "$PWD/outputs:/outputs" spacenet5
# docker run --gpus all -v "$PWD/data:/data" -v "$PWD/outputs:/outputs" spacenet5 spacenet5 pipeline --preset demo
# docker run --gpus all -v "$PWD/data:/data" -v "$PWD/outputs:/outputs" spacenet5 train.sh /data/train/AOI_7_Moscow /data/train/AOI_8_Mumbai
# Debian 12 has Python 3.11; PyPI's torch brings its own CUDA runtime, so that the host's driver (nvidia-container-toolkit) is all that a GPU needs.
FROM python:3.11-slim-bookworm

ENV NVIDIA_VISIBLE_DEVICES=all NVIDIA_DRIVER_CAPABILITIES=compute,utility
ENV DEBIAN_FRONTEND=noninteractive PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1 PYTHONUNBUFFERED=1
RUN apt-get update \
    && apt-get install -y --no-install-recommends make curl ca-certificates \
    && rm -rf /var/lib/apt/lists/*

RUN useradd --create-home --uid 1000 mapper && mkdir /data /outputs /workspace && chown mapper /data /outputs /workspace
USER mapper
WORKDIR /workspace

# dependencies first: they change less often than the code
COPY --chown=mapper pyproject.toml constraints.txt Makefile README.md LICENSE settings.ini ./
COPY --chown=mapper spacenet5_nb ./spacenet5_nb
COPY --chown=mapper configs ./configs
RUN make install PYTHON=python3.11
COPY --chown=mapper . .

# the contest's contract: train.sh <data folder> ..., test.sh <data folder> ... <solution.csv>
ENV PATH=/workspace/scripts:/workspace/.venv/bin:$PATH SPACENET5_DATA=/data SPACENET5_OUTPUTS=/outputs SPACENET5_ROOT=/workspace
VOLUME ["/data", "/outputs"]
EXPOSE 8888
HEALTHCHECK --interval=30s --timeout=5s --start-period=20s CMD curl --fail --silent http://127.0.0.1:8888/api || exit 1
# Jupyter prints an address with a token; without the token nothing answers
CMD ["jupyter", "lab", "--ip=0.0.0.0", "--port=8888", "--no-browser", "--notebook-dir=/workspace/nbs"]
