"""What a forked gateway has yet to import at its start: the names of the modules, as a JSON list."""

import json
import sys

if __name__ == "__main__":
    known = set(sys.modules)
    import gateway.process  # noqa: F401

    print(json.dumps(sorted(set(sys.modules) - known)), flush=True)
