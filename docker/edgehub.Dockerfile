# The agent. Build from the repository's root:
#   docker build -f docker/edgehub.Dockerfile -t edgehub .
# It runs as root: a container runtime's socket and KubeEdge's folders on a node belong to root.
FROM python:3.11-slim AS build
WORKDIR /src
COPY pyproject.toml constraints.txt LICENSE README.md ./
COPY shared shared
COPY cloudhub cloudhub
COPY edgehub edgehub
RUN python -m venv /opt/edgehub \
    && /opt/edgehub/bin/pip install --no-cache-dir --disable-pip-version-check -c constraints.txt .

FROM python:3.11-slim
COPY --from=build /opt/edgehub /opt/edgehub
ENV PATH=/opt/edgehub/bin:$PATH PYTHONUNBUFFERED=1
# Certificates and edgecore.yaml; the journal and, without a container runtime, the images.
VOLUME ["/etc/kubeedge", "/var/lib/kubeedge"]
ENTRYPOINT ["edgehub"]
CMD ["run", "--config", "/etc/kubeedge/config/edgecore.yaml"]
