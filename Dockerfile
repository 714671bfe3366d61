# docker build -t yolov5-gradnorm . && docker run --rm --shm-size 2g -v "$PWD/runs:/app/runs" yolov5-gradnorm [make test]
# CPU; on a GPU add `--gpus all`: pip's torch for Linux brings CUDA.
FROM python:3.12-slim
# git fetches YOLOv5, make runs the README's two commands, OpenCV loads the other two
# hadolint ignore=DL3008
RUN apt-get update \
 && apt-get install -y --no-install-recommends git make libgl1 libglib2.0-0 \
 && rm -rf /var/lib/apt/lists/*
WORKDIR /app
COPY . .
RUN make setup
CMD ["make", "train"]
