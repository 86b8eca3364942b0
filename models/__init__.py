"""What a servable generator is, and when it may be promoted. Knows nothing of torch or HTTP."""

import os

# ONNX Runtime's own builds for Linux and macOS (from 1.29 on) report to Microsoft what sessions run, files' names and
# graphs' hashes among it, and keep an identifier in the user's cache folder. It decides so once, when it is loaded;
# ORT_DISABLE_TELEMETRY=0 in the environment lets it.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
