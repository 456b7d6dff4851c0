"""``python -m specee``."""

import sys

from specee.cli import main

sys.exit(main())
