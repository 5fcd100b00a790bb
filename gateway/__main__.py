"""Entry."""

import sys

sys.stdout.write(f"gateway {sys.argv[1:]} on {sys.version_info[:3]}\n")
