ARG BASE_IMAGE=python:3.11-slim

FROM ${BASE_IMAGE} AS build
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1
WORKDIR /src
RUN python3 -m venv /opt/cxr
# What the package needs comes first: it changes seldom, and the layer is kept.
COPY pyproject.toml constraints.txt ./
RUN python3 -c "import tomllib; project = tomllib.load(open('pyproject.toml', 'rb'))['project']; print('\n'.join(project['dependencies'] + project['optional-dependencies']['serve']))" > requirements.txt \
 && /opt/cxr/bin/pip install --quiet --constraint constraints.txt --requirement requirements.txt
COPY README.md LICENSE ./
COPY cxr cxr
RUN /opt/cxr/bin/pip install --quiet --no-deps . \
 && /opt/cxr/bin/pip uninstall --quiet --yes setuptools pip \
 && /opt/cxr/bin/python -c "import cxr.serve.app, onnxruntime, sys; assert 'torch' not in sys.modules"

FROM ${BASE_IMAGE}
LABEL org.opencontainers.image.title="cxr" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.description="Chest X-ray classification. Research use only, not a medical device."
COPY --from=build /opt/cxr /opt/cxr
# A new volume takes its owner from here; the number needs no account in the image.
RUN install -d -o 10001 -g 10001 -m 0700 /data && install -d /bundle
ENV PATH=/opt/cxr/bin:$PATH \
    HOME=/tmp \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    FLASK_APP=cxr.serve \
    CXR_BUNDLE=/bundle \
    CXR_DATA_FOLDER=/data \
    CXR_BIND=0.0.0.0:5000
VOLUME ["/data"]
EXPOSE 5000
USER 10001:10001
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=5s --retries=3 \
  CMD ["python3", "-c", "import urllib.request as r; r.urlopen('http://127.0.0.1:5000/healthz', timeout=4)"]
CMD ["gunicorn", "--config", "python:cxr.serve.gunicorn_conf", "cxr.serve:create_app()"]
