"""`python -m tests.supply sbom | licences | audit`."""

from __future__ import annotations

import argparse
import sys

from tests.supply import audit, boms, licences


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.supply", description=__doc__)
    parser.add_argument("what", choices=("sbom", "licences", "audit"))
    what = parser.parse_args().what
    if what == "audit":
        return audit.audit()
    boms.write()
    if what == "licences":
        strange = licences.write(boms.BOMS)
        for package in strange:
            print(f"{package.name} {package.version}: {package.licence or 'no licence is known'}")
        return int(bool(strange))
    for bom in boms.BOMS.values():
        print(bom.relative_to(boms.ROOT))
    return 0


if __name__ == "__main__":
    sys.exit(main())
