# One image a service, each with its own locked dependencies and its own code alone: `docker build --target scorer .`
FROM python:3.11-slim-bookworm AS base
ENV PATH=/venv/bin:$PATH PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1
RUN groupadd --gid 10001 clv \
 && useradd --uid 10001 --gid clv --no-create-home --home-dir /app --shell /usr/sbin/nologin clv \
 && install -d -o clv -g clv /data/features /models
WORKDIR /app

# Hashes are checked and nothing is compiled, so no build tools enter any image.
FROM base AS dependencies
RUN python -m venv /venv
ENV INSTALL="pip install --no-cache-dir --disable-pip-version-check --only-binary :all: --require-hashes --requirement"

FROM dependencies AS ingest-dependencies
COPY locks/ingest.txt /locks/
RUN $INSTALL /locks/ingest.txt

FROM dependencies AS features-dependencies
COPY locks/features.txt /locks/
RUN $INSTALL /locks/features.txt

FROM dependencies AS scorer-dependencies
COPY locks/scorer.txt /locks/
RUN $INSTALL /locks/scorer.txt

FROM dependencies AS sink-dependencies
COPY locks/sink.txt /locks/
RUN $INSTALL /locks/sink.txt

FROM dependencies AS api-dependencies
COPY locks/api.txt /locks/
RUN $INSTALL /locks/api.txt

FROM dependencies AS dashboard-dependencies
COPY locks/dashboard.txt /locks/
RUN $INSTALL /locks/dashboard.txt

FROM dependencies AS cli-dependencies
COPY locks/cli.txt /locks/
RUN $INSTALL /locks/cli.txt

FROM base AS code
COPY domain domain
COPY schemas schemas
COPY services/__init__.py services/__init__.py
COPY services/runtime services/runtime
USER 10001:10001

FROM code AS ingest
COPY --from=ingest-dependencies /venv /venv
COPY services/ingest services/ingest
EXPOSE 8001
HEALTHCHECK --interval=10s --timeout=5s --start-period=30s \
  CMD ["python", "-c", "import urllib.request as http; http.urlopen('http://127.0.0.1:8001/healthz', timeout=3)"]
CMD ["python", "-m", "services.ingest"]

FROM code AS features
COPY --from=features-dependencies /venv /venv
COPY services/folding services/folding
COPY services/features services/features
VOLUME ["/data/features"]
EXPOSE 8002
HEALTHCHECK --interval=10s --timeout=5s --start-period=60s \
  CMD ["python", "-c", "import urllib.request as http; http.urlopen('http://127.0.0.1:8002/healthz', timeout=3)"]
CMD ["python", "-m", "services.features"]

FROM code AS scorer
COPY --from=scorer-dependencies /venv /venv
COPY services/inference services/inference
COPY services/scorer services/scorer
EXPOSE 8003
HEALTHCHECK --interval=10s --timeout=5s --start-period=30s \
  CMD ["python", "-c", "import urllib.request as http; http.urlopen('http://127.0.0.1:8003/healthz', timeout=3)"]
CMD ["python", "-m", "services.scorer"]

FROM code AS sink
COPY --from=sink-dependencies /venv /venv
COPY services/sink services/sink
EXPOSE 8004
HEALTHCHECK --interval=10s --timeout=5s --start-period=30s \
  CMD ["python", "-c", "import urllib.request as http; http.urlopen('http://127.0.0.1:8004/healthz', timeout=3)"]
CMD ["python", "-m", "services.sink"]

FROM code AS api
COPY --from=api-dependencies /venv /venv
COPY services/inference services/inference
COPY services/api services/api
EXPOSE 8005
HEALTHCHECK --interval=10s --timeout=5s --start-period=30s \
  CMD ["python", "-c", "import urllib.request as http; http.urlopen('http://127.0.0.1:8005/healthz', timeout=3)"]
CMD ["python", "-m", "services.api"]

FROM code AS dashboard
COPY --from=dashboard-dependencies /venv /venv
COPY services/dashboard services/dashboard
# Streamlit looks for a configuration of its own there.
ENV HOME=/tmp
EXPOSE 8006
HEALTHCHECK --interval=10s --timeout=5s --start-period=30s \
  CMD ["python", "-c", "import urllib.request as http; http.urlopen('http://127.0.0.1:8006/healthz', timeout=3)"]
CMD ["python", "-m", "services.dashboard"]

# The operator's commands (setup, train): every group, every service.
FROM code AS cli
COPY --from=cli-dependencies /venv /venv
COPY services services
COPY deploy deploy
COPY cli cli
CMD ["python", "-m", "cli", "--help"]
