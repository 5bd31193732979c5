# The hub. Build from the repository's root:
#   docker build -f docker/cloudhub.Dockerfile -t cloudhub .
FROM python:3.11-slim AS build
WORKDIR /src
COPY pyproject.toml constraints.txt LICENSE README.md ./
COPY shared shared
COPY cloudhub cloudhub
COPY edgehub edgehub
RUN python -m venv /opt/cloudhub \
    && /opt/cloudhub/bin/pip install --no-cache-dir --disable-pip-version-check -c constraints.txt '.[cloud]'

FROM python:3.11-slim
# A number, so that Kubernetes can see that it is not root. The folders are those of the default configuration.
RUN useradd --system --uid 65532 --user-group --no-create-home cloudhub \
    && install -d -o cloudhub -g cloudhub -m 0750 /var/lib/kubeedge/cloudhub /data
COPY --from=build /opt/cloudhub /opt/cloudhub
ENV PATH=/opt/cloudhub/bin:$PATH PYTHONUNBUFFERED=1
USER 65532:65532
# Sessions, joining, health and metrics; 6443 is the API server of `cloudhub standalone`.
EXPOSE 10000 10002 9091 6443
ENTRYPOINT ["cloudhub"]
CMD ["--log-format", "json", "run", "--config", "/etc/kubeedge/config/cloudcore.yaml"]
