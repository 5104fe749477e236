"""The application of a Hugging Face Space: `prsr web` on the port that Spaces expect.

python examples/space/app.py
"""

from __future__ import annotations

from prsr.cli.web import web

if __name__ == "__main__":
    web(["--host", "0.0.0.0", "--port", "7860"], standalone_mode=True)
