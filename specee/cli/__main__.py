"""``python -m specee.cli``."""

import sys

from specee.cli import main

sys.exit(main())
