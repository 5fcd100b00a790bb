"""Print the modules that a forked gateway still has to import at its start, as a JSON list of names."""

import json
import sys

if __name__ == "__main__":
    known = set(sys.modules)
    import gateway.process  # noqa: F401

    print(json.dumps(sorted(set(sys.modules) - known)), flush=True)
