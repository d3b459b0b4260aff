# syntax=docker/dockerfile:1
# One image for every role: `matyan up`, `serve`, `frontier`, `ingest`, `control`. How to run it: docs/how-to/four-roles.md.

# 3.12 is the newest Python for which all of our optional dependencies have wheels (aimrocks ends there).
ARG PYTHON_IMAGE=python:3.12.12-slim-bookworm

# ---- wheels: everything that is locked, by its hash, and this package

FROM ${PYTHON_IMAGE} AS wheels
WORKDIR /source
COPY requirements-build.lock ./
RUN pip install --no-cache-dir --require-hashes --requirement requirements-build.lock
COPY requirements-image.lock ./
RUN pip wheel --no-cache-dir --require-hashes --no-deps --no-build-isolation --wheel-dir /wheels \
        --requirement requirements-image.lock
COPY pyproject.toml README.md LICENSE ./
COPY matyan ./matyan
RUN pip wheel --no-cache-dir --no-deps --no-build-isolation --wheel-dir /wheels .

# ---- an environment of these wheels, without pip in it

FROM ${PYTHON_IMAGE} AS environment
RUN --mount=type=bind,from=wheels,source=/wheels,target=/wheels \
    python -m venv --without-pip /opt/matyan \
    && pip --python /opt/matyan/bin/python install --no-cache-dir --no-deps --no-index /wheels/*.whl

# ---- the client library of FoundationDB; the servers must be of the same minor version

FROM ${PYTHON_IMAGE} AS foundationdb
ARG TARGETARCH
ARG FDB_VERSION=7.3.69
ARG FDB_SHA256_AMD64=ea59d1708519798c7bc4f514cd29af1ac8e41dccbec4371f22d86b713ea81cbf
# For arm64 take it from foundationdb-clients_7.3.69-1_aarch64.deb.sha256 of the release, and name it for the build.
ARG FDB_SHA256_ARM64=
COPY config/image/libfdb.py /tmp/
RUN case "${TARGETARCH}" in arm64) sha256="${FDB_SHA256_ARM64}" ;; *) sha256="${FDB_SHA256_AMD64}" ;; esac \
    && python /tmp/libfdb.py "${FDB_VERSION}" "${TARGETARCH:-amd64}" "${sha256}" /usr/lib/libfdb_c.so

# ---- what runs

FROM ${PYTHON_IMAGE}
ARG VERSION=0.1.0
ARG REVISION=unknown
LABEL org.opencontainers.image.title="matyan" \
      org.opencontainers.image.description="A self-hosted tracker for machine-learning experiments" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}"
RUN groupadd --system --gid 10001 matyan \
    && useradd --system --uid 10001 --gid matyan --home-dir /var/lib/matyan --shell /usr/sbin/nologin matyan \
    && install --directory --owner matyan --group matyan --mode 0700 /var/lib/matyan
COPY --from=foundationdb /usr/lib/libfdb_c.so /usr/lib/libfdb_c.so
COPY --from=environment /opt/matyan /opt/matyan
# A container has an address of its own, so 127.0.0.1 would be reached by nobody. Listening on all of them is refused
# until MATYAN_HTTP_ALLOW_REMOTE=true says that whoever reaches the published port may read and delete everything.
ENV PATH=/opt/matyan/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    MATYAN_HOME=/var/lib/matyan \
    MATYAN_HTTP_HOST=0.0.0.0 \
    MATYAN_LOGGING_FORMAT=json
WORKDIR /var/lib/matyan
VOLUME /var/lib/matyan
EXPOSE 53800 53801 9101 9102
# By number, so that Kubernetes can see that it is not root.
USER 10001:10001
STOPSIGNAL SIGTERM
# Of `matyan up`; where another role runs, its name is added (config/compose.yaml).
HEALTHCHECK --interval=10s --timeout=6s --start-period=60s --retries=3 CMD ["matyan", "health"]
ENTRYPOINT ["matyan"]
CMD ["up"]
