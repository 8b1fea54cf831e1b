# A server with the small model that ships:
#   docker build -t omni-avsr .
#   docker run -p 8000:8000 omni-avsr
# With CUDA: docker build --build-arg TORCH_INDEX=https://download.pytorch.org/whl/cu128 -t omni-avsr .
FROM python:3.12-slim

ARG TORCH_INDEX=https://download.pytorch.org/whl/cpu

WORKDIR /omni-avsr
COPY pyproject.toml constraints.txt README.md LICENSE cli.py ./
COPY omni_avsr omni_avsr
COPY recipes recipes
RUN pip install --no-cache-dir --extra-index-url "$TORCH_INDEX" --constraint constraints.txt ".[serve]" \
    && useradd --create-home --uid 1000 speaker

USER 1000
WORKDIR /home/speaker
EXPOSE 8000
HEALTHCHECK --interval=30s --timeout=5s --start-period=60s \
    CMD ["python", "-c", "import urllib.request; urllib.request.urlopen('http://127.0.0.1:8000/health')"]
ENTRYPOINT ["omni-avsr"]
CMD ["serve", "--host", "0.0.0.0"]
