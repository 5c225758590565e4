# One image for every agent. Wheels, kernels and data are made ready in stages of their own; what runs has no package
# client and no compiler, and a change of the sources leaves the slow stages alone.
#
# With a registry and a package index:   docker-compose build
# Without an index: put the wheels into build/wheels and set SWARM_OFFLINE=1. Without a registry: set SWARM_BASE to a
# local image that has Python 3.11 to 3.14 with its venv module. tests/cluster does both.
ARG BASE=python:3.11-slim-bookworm

FROM ${BASE} AS dependencies
LABEL trading-swarm.stage=dependencies
ARG PIP_NO_INDEX=
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1 PIP_ROOT_USER_ACTION=ignore PIP_FIND_LINKS=/wheels
# The lock files keep this line valid where there are no wheels.
COPY requirements/run.lock requirements/dev.lock build/wheel[s] /wheels/
RUN sed -n '/^setuptools==/,/# via/p' /wheels/dev.lock > /wheels/build.lock \
 && python3 -m venv /opt/build \
 && /opt/build/bin/pip install --quiet --require-hashes --only-binary :all: -r /wheels/build.lock \
 && python3 -m venv --without-pip /opt/swarm \
 && /opt/build/bin/pip --python /opt/swarm/bin/python install \
      --quiet --require-hashes --only-binary :all: -r /wheels/run.lock \
 && ln -s "$(/opt/swarm/bin/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')" /packages

# Numba knows a kernel by its file's path and content, so the room stands here where the image will have it.
FROM dependencies AS kernels
LABEL trading-swarm.stage=kernels
COPY dtw /packages/dtw
ENV NUMBA_CACHE_DIR=/var/lib/swarm/kernels
RUN /opt/swarm/bin/python -c 'from dtw.warmup import warmup; print(warmup())'

FROM dependencies AS project
LABEL trading-swarm.stage=project
COPY . /source
RUN /opt/build/bin/pip wheel --quiet --no-deps --no-build-isolation --wheel-dir /project /source \
 && /opt/build/bin/pip --python /opt/swarm/bin/python install --quiet --no-deps --root /staging /project/*.whl \
 && PYTHONPATH=/source:/packages /opt/build/bin/python -m agents.cli data fetch us-large-caps --dir /staging/opt/swarm/data \
 && chmod -R a+rX /staging

FROM ${BASE}
LABEL trading-swarm.stage=final org.opencontainers.image.title=trading-swarm org.opencontainers.image.licenses=Apache-2.0
# A named volume begins as a copy of what lies here, owners included: agents that are not root can write their own
# volumes and nobody else's. The kernels lie in the data volume because numba wants to write where it reads, and has to
# on another kind of processor than the one that built the image.
RUN groupadd --gid 10001 swarm \
 && useradd --uid 10001 --gid swarm --no-create-home --home-dir /var/lib/swarm --shell /usr/sbin/nologin swarm \
 && install -d -o swarm -g swarm -m 0755 /cluster /cluster/pki \
 && install -d -o swarm -g swarm -m 0700 /var/lib/swarm \
 && for id in trader-1 risk-1 risk-2 executor-1 venue operator; do \
      install -d -o swarm -g swarm -m 0700 "/cluster/pki/$id"; \
    done
COPY --from=dependencies /opt/swarm /opt/swarm
COPY --from=kernels --chown=10001:10001 /var/lib/swarm/kernels /var/lib/swarm/kernels
COPY --from=project /staging/opt/swarm /opt/swarm
ENV PATH=/opt/swarm/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    SWARM_CONFIG=/cluster/cluster.toml \
    SWARM_DATA_DIR=/opt/swarm/data \
    NUMBA_CACHE_DIR=/var/lib/swarm/kernels
USER 10001:10001
CMD ["swarm", "--help"]
