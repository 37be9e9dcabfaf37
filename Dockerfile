# docker build -t entrostat . && docker run --rm -v "$PWD:/work" entrostat diagnose train.log
FROM python:3.11-slim
RUN pip install --no-cache-dir torch==2.13.0 --index-url https://download.pytorch.org/whl/cpu
COPY pyproject.toml README.md LICENSE /src/
COPY src /src/src
RUN pip install --no-cache-dir /src
WORKDIR /work
ENTRYPOINT ["entrostat"]
