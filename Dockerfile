# The image of amsync: `gateway`, `worker`, `serve` and the tools, as one program.
#
# Needs nothing beyond the plain Dockerfile language: the classic builder and BuildKit both build
# it. What takes long (crates, Python packages) is built before the sources are copied, so that a
# change of ours rebuilds only ours.
#
#   docker build -t amsync --build-arg VERSION=0.1.0 --build-arg REVISION=$(git rev-parse HEAD) .

ARG RUST_IMAGE=rust:1.95-slim-bookworm
ARG PYTHON_IMAGE=python:3.13-slim-bookworm

# -- the wheel: abi3, so Debian's Python here builds it for the newer one below

FROM ${RUST_IMAGE} AS wheel
RUN apt-get update \
    && apt-get install -y --no-install-recommends gcc libc6-dev python3 python3-venv \
    && rm -rf /var/lib/apt/lists/*
WORKDIR /src
COPY constraints.txt ./
RUN python3 -m venv /build \
    && /build/bin/pip install --no-cache-dir --quiet -c constraints.txt maturin

# The crates, with an engine that is empty. By maturin, not by plain cargo: PyO3's build scripts
# see another environment there and would all run again.
COPY shared/native/Cargo.toml shared/native/Cargo.lock shared/native/
RUN mkdir shared/native/src \
    && touch shared/native/src/lib.rs \
    && /build/bin/maturin build --release --locked --manifest-path shared/native/Cargo.toml --out /tmp/empty \
    && rm -r /tmp/empty

# The engine. Cargo goes by the time of a file: those of a checkout are older than the empty one.
COPY shared/native/src shared/native/src
RUN find shared/native/src -exec touch {} + \
    && /build/bin/maturin build --release --locked --strip --manifest-path shared/native/Cargo.toml --out /tmp/engine \
    && rm -r /tmp/engine

COPY LICENSE README.md pyproject.toml ./
COPY gateway gateway
COPY worker worker
COPY shared/amsync shared/amsync
RUN /build/bin/maturin build --release --locked --out /wheel

# -- the virtual environment

FROM ${PYTHON_IMAGE} AS environment
WORKDIR /src
RUN python -m venv --without-pip /opt/amsync
COPY pyproject.toml constraints.txt ./
RUN python -c "import tomllib; print(*tomllib.load(open('pyproject.toml', 'rb'))['project']['dependencies'], sep='\n')" > requirements.txt \
    && pip --python /opt/amsync/bin/python install --no-cache-dir --quiet --only-binary :all: -c constraints.txt -r requirements.txt
COPY --from=wheel /wheel /wheel
RUN pip --python /opt/amsync/bin/python install --no-cache-dir --quiet --no-deps --no-index /wheel/*.whl

# -- what runs

FROM ${PYTHON_IMAGE}
ARG VERSION=0.1.0
ARG REVISION=unknown
LABEL org.opencontainers.image.title="amsync" \
      org.opencontainers.image.description="A sync server for automerge-repo clients" \
      org.opencontainers.image.licenses="MIT" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}"

# A new volume takes over owner and mode of /data.
RUN groupadd --gid 10001 amsync \
    && useradd --uid 10001 --gid amsync --no-create-home --home-dir /nonexistent --shell /usr/sbin/nologin amsync \
    && install --directory --owner=amsync --group=amsync --mode=0750 /data
COPY --from=environment /opt/amsync /opt/amsync

# In a container loopback reaches nobody. `serve` and `gateway` still refuse to start there
# without authentication, unless --allow-anonymous is given.
ENV PATH=/opt/amsync/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    AMSYNC_DATA_DIR=/data \
    AMSYNC_HOST=0.0.0.0 \
    AMSYNC_ADMIN_HOST=0.0.0.0
USER 10001:10001
WORKDIR /data
EXPOSE 3030 3031 3032
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=6s --start-period=60s --retries=3 CMD ["amsync", "health"]
ENTRYPOINT ["amsync"]
CMD ["serve"]
